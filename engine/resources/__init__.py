"""Resources of functions and projects: triggers, tags, dependencies, reservations and others, one class per kind."""
