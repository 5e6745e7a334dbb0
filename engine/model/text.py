"""Conversion of text and data from outside, such as messages of functions, to a form that can be stored or shown."""

from __future__ import annotations

import re
from typing import Any

#: Characters that command a terminal, change the direction of text, or are invisible. Joiners of scripts and emoji are
#: not among them.
CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
MASK = "******"  #: shown in place of a secret


def storable(text: str, limit: int = 4096) -> str:
    """Return the text cut to ``limit`` characters, with escapes for characters that UTF-8 cannot encode.

    Such characters are lone surrogates, for example from undecodable file names. Escapes may make the result longer
    than ``limit``.
    """
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def visible(text: str, keep: str = "") -> str:
    """Return the text with escapes for its control characters, except those in ``keep``."""
    return CONTROLS.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    long = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(character, long)


def without_nulls(value: Any) -> Any:
    """Return a copy of JSON data without null fields, at any depth: the API treats null fields as missing."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
