"""Function logs: stored format, subscriptions to new lines, and names of a function's log in the log service."""
