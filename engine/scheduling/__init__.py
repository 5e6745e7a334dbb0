"""Scheduling: the backlog, its order, and the time at which invocations start."""
