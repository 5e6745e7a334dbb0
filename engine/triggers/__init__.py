"""Triggers: their sources, the services and HTTP routes of plugins, and acceptance of events."""
