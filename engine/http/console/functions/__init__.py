"""Pages of functions: the list, creation, and the tabs of one function except its configuration."""
