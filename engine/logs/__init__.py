"""Function logs: stored format, subscriptions to new lines, and log stream of a function."""
