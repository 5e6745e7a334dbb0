"""Moments as the API writes them: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.errors import BadQuery


def short_time(moment: float) -> str:
    """``2026-01-31T23:59:59``, as invocation records have it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def zoned_time(moment: float) -> str:
    """``2026-01-31T23:59:59Z``, as functions and settings have it."""
    return short_time(moment) + "Z"


def exact_time(moment: float) -> str:
    """With milliseconds, where the field is ours."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(field: str, text: str) -> float:
    """Seconds since the epoch; UTC unless the text names a zone."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(field, text, "must be UTC as YYYY-MM-DDTHH:mm:ss") from None


def read_end(field: str, text: str) -> float:
    """The same, as the end of a span: a second is meant whole, the last one too."""
    return read_time(field, text) + 0.9995
