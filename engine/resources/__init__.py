"""What belongs to functions and projects besides the functions themselves: one actor per family."""
