"""Triggers: runs their sources and the services of plugins, and accepts their events."""
