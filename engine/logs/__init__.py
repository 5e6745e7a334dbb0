"""Function logs: their format, their subscribers, and the log stream of a function."""
