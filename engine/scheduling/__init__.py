"""What waits, which of it is next, and when."""
