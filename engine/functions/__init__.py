"""Functions, versions and aliases: storage, look-up by URN, and validation."""
