"""Sources of triggers, services and HTTP routes of plugins, and acceptance of the events of sources."""
