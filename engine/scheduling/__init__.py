"""Scheduling: limits of the backlog, order of waiting invocations, and their assignment to free slots."""
