"""Pages of deliveries: those that wait, are retried or were given up, and the state of their destinations."""
