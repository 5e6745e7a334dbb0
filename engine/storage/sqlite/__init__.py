"""SQLite storage of all data that must survive a restart: invocations, functions, resources, cursors, plugin tables."""

from engine.storage.sqlite.database import Storage, locked, open_storage
from engine.storage.sqlite.writer import JournalBroken, Writer, WriterStatistics

__all__ = ["JournalBroken", "Storage", "Writer", "WriterStatistics", "locked", "open_storage"]
