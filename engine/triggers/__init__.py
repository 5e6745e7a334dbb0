"""Runs the sources of triggers, and what their plugins run beside them."""
