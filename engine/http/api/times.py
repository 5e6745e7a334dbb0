"""Formats of times in the API: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.errors import BadQuery


def short_time(moment: float) -> str:
    """Format a time as ``2026-01-31T23:59:59``, as in invocation records."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def zoned_time(moment: float) -> str:
    """Format a time as ``2026-01-31T23:59:59Z``, as in functions and settings."""
    return short_time(moment) + "Z"


def exact_time(moment: float) -> str:
    """Format a time with milliseconds, as in fields that extend the API."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(field: str, text: str) -> float:
    """Return a time in seconds since the epoch. ``text`` is UTC unless it names a zone. Raises BadQuery."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(field, text, "must be UTC as YYYY-MM-DDTHH:mm:ss") from None


def read_end(field: str, text: str) -> float:
    """Return the end of a time span in seconds since the epoch. Its last second is included. Raises BadQuery."""
    return read_time(field, text) + 0.9995
