"""Web console: pages about the engine, its functions, invocations, triggers and deliveries, and their actions."""
