"""SQLite storage of all data that must survive a restart: invocations, functions, resources, cursors, plugin tables."""
