"""Settings and plugin registry: reading, validation, and lookup by kind."""
