"""Scheduling: limits of the backlog, order of waiting invocations, and their hand-over to free slots."""
