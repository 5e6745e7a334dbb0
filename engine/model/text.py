"""Clean-up of external text and data before storing."""

from __future__ import annotations

from typing import Any

MASK = "******"  #: shown in place of a secret


def storable(text: str, limit: int = 4096) -> str:
    """Return the text in a form that UTF-8 can encode, cut to ``limit`` characters before escaping.

    Lone surrogates, which for example undecodable file names contain, become escapes.
    """
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def without_nulls(value: Any) -> Any:
    """Return a copy without null fields, at any depth. A null field has the same meaning as a missing one."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value
