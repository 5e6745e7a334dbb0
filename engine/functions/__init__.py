"""Functions with their versions, aliases and asynchronous settings: storage, look-up by URN, and validation."""
