"""Background work on stored data: pruning, backups, and the hold of expiry while the clock is in doubt."""
