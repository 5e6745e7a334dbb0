"""Conversion of text and data from outside, such as error messages of functions, to a form that can be stored."""

from __future__ import annotations

from typing import Any

MASK = "******"  #: shown in place of a secret


def storable(text: str, limit: int = 4096) -> str:
    """Return the text cut to ``limit`` characters, with escapes for characters that UTF-8 cannot encode.

    Such characters are lone surrogates, for example from undecodable file names. Escapes may make the result longer
    than ``limit``.
    """
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def without_nulls(value: Any) -> Any:
    """Return a copy of JSON data without null fields, at any depth: the API treats null fields as missing."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value
