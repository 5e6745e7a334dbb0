"""Pages of the tab Configuration of a function."""
