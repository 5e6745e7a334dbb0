"""Background work on stored data: pruning, discarding, and refusal of new work at low disk space."""
