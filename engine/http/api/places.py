"""Places in lists as the text of a parameter, by which a next request goes on from there."""

from __future__ import annotations

import re

from engine.errors import InvalidField
from engine.protocols import FIRST, LAST_KEY, Place

_PLACE = re.compile(r"(\d):(-?\d{1,17}(?:\.\d{1,20})?(?:e[+-]\d{1,3})?):(\d{1,19})")


def show_place(place: Place | None) -> str:
    """Return a place in a scan as text. The begin of a scan is ``0``, its end is empty."""
    if place is None or place == FIRST:
        return "" if place is None else "0"
    return f"{place[0]}:{place[1]!r}:{place[2]}"


def read_place(text: str, field: str = "marker") -> Place:
    """Return the place in a text. Raise InvalidField, which names ``field``, if the text is none."""
    if text in ("", "0"):
        return FIRST
    found = _PLACE.fullmatch(text)
    if found is None or int(found[3]) > LAST_KEY:
        raise InvalidField(field, text, f"must be the next_{field} of the previous step, or empty")
    return int(found[1]), float(found[2]), int(found[3])
