"""Damage of single pages of the database."""

from __future__ import annotations

import sqlite3


def is_damage(error: BaseException) -> bool:
    """Return whether a statement failed at a damaged page or row, and not at the disk or at a row it writes."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    return code == sqlite3.SQLITE_CORRUPT or str(error).startswith("Could not decode")
