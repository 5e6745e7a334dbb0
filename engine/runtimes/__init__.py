"""Runtimes: their names, the interpreters that run them, and the protocol of an instance."""
