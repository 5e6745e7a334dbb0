"""SQLite storage of all data that must survive a restart: invocations, functions, resources, cursors, plugin tables."""

from engine.storage.sqlite.database import open_sqlite

__all__ = ["open_sqlite"]
