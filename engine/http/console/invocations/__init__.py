"""Pages of asynchronous invocations: lists, one invocation, and actions on many."""
