"""Runtimes: names, interpreters that run them, and the protocol between engine and instance."""
