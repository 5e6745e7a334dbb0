"""Overview, the first page of the console: what needs attention, the state of the engine now, and charts."""
