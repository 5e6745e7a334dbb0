"""Conversion between times in the API's texts and seconds since the epoch. Texts are in UTC, mostly to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.errors import BadQuery

#: Seconds from a queried end to the end of its second.
LAST_SECOND = 0.9995


def short_time(moment: float) -> str:
    """Format a time like ``2026-01-31T23:59:59``, the form in invocation records."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def zoned_time(moment: float) -> str:
    """Format a time like ``2026-01-31T23:59:59Z``, the form in functions and settings."""
    return short_time(moment) + "Z"


def exact_time(moment: float) -> str:
    """Format a time like ``2026-01-31T23:59:59.123Z``, the form in fields that the FunctionGraph API does not have."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(field: str, text: str) -> float:
    """Return the time in ``text`` in seconds since the epoch. A text without a time zone is read as UTC.

    Raises BadQuery, which names the query parameter ``field``, if ``text`` is not an ISO 8601 time.
    """
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(field, text, "must be UTC as YYYY-MM-DDTHH:mm:ss") from None


def read_end(field: str, text: str) -> float:
    """Return the end of a queried time span in seconds since the epoch. Its last second belongs to the span.

    Raises BadQuery, which names the query parameter ``field``, if ``text`` is not an ISO 8601 time.
    """
    return read_time(field, text) + LAST_SECOND
