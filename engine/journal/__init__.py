"""The durable truth about invocations, on SQLite."""

from engine.journal.database import Storage, locked, open_storage
from engine.journal.writer import JournalBroken, Writer, WriterStatistics

__all__ = ["JournalBroken", "Storage", "Writer", "WriterStatistics", "locked", "open_storage"]
