"""Background work on stored data: pruning, discarding, and the free-space watermark."""
