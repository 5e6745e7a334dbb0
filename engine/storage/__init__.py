"""Storage of invocations, catalog and plugin tables."""
