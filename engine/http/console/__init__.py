"""Web console: read-only pages about the engine, its functions, invocations, triggers and deliveries."""
