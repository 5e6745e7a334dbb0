"""Text and data from elsewhere, made fit to be kept."""

from __future__ import annotations

from typing import Any

MASK = "******"  #: stands for a secret


def storable(text: str, limit: int = 4096) -> str:
    """UTF-8 can hold it: lone surrogates (in undecodable file names, say) become escapes; and it is not too long."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def without_nulls(value: Any) -> Any:
    """A copy without the fields that are null, at any depth: a null is as good as nothing."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value
