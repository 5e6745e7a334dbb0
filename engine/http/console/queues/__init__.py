"""Pages of queues: what waits and why, and the steps that cancel it."""
