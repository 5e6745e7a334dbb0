"""Fields that a command line gives as ``NAME=VALUE``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from typing import Any

from engine.errors import UsageError


def read_fields(pairs: Sequence[str], *, kind: str = "field") -> dict[str, Any]:
    """Return the values of ``name=value`` pairs by name. A value that is no JSON is a text.

    Raises UsageError, in which ``kind`` names what the pairs are, for a text without ``=`` and for a repeated name.
    """
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UsageError(f"{pair!r} is not a {kind} and its value: write NAME=VALUE")
        if name in fields:
            raise UsageError(f"{name} is given twice: give each {kind} once")
        fields[name] = read_value(value)
    return fields


def read_value(text: str) -> Any:
    """Return the JSON value of a text, or the text if it is no JSON."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, which are no JSON for the engine
    except ValueError:
        return text
    return value


def expected(name: str, names: Collection[str]) -> str:
    """Return the hint of an error about an unknown name: the nearest known one, or the first ten, if any."""
    if not names:
        return "there are none"
    near = difflib.get_close_matches(name, names, n=1)
    more = ", …" * (len(names) > 10)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(list(names)[:10])}{more}"
