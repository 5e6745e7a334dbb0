"""Signing in to the console, and the sessions of those who have."""
