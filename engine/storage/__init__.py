"""Storage of invocations, functions, resources and plugin tables."""
