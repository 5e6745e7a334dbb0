"""Pages of lists: a query selects the first entry (``marker``) and the largest number of entries (limit).

A limit of 0 means the default number; a limit above the maximum means the maximum (FunctionGraph API). ``next_marker``
in a reply is the ``marker`` of the next page. After the last page, ``next_marker`` is the number of all entries and
changes no more. Scans of invocations go on from a place instead, which is a text to clients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from engine.errors import InvalidField
from engine.http.api.routing import Call
from engine.protocols import FIRST, LAST_KEY, Place

T = TypeVar("T")

#: Query parameters of a page. Lists that the vendor has made at different times name the limit differently.
PAGE, ITEMS = ("marker", "limit"), ("marker", "maxitems")
MAX_ITEMS = 400  #: entries of a page of functions, versions or dependencies
MAX_LIMIT = 500  #: entries of a page of most other lists
MAX_SETTINGS = 100
MAX_TAGGED = 1_000
_PLACE = re.compile(r"(\d):(-?\d{1,17}(?:\.\d{1,20})?(?:e[+-]\d{1,3})?):(\d{1,19})")


class PageInfo(Struct, frozen=True, kw_only=True):
    next_marker: int
    previous_marker: int
    current_count: int


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    items: Sequence[T]
    count: int  #: entries of all pages
    info: PageInfo

    @property
    def next_marker(self) -> int:
        return self.info.next_marker


def page_of(
    call: Call, entries: Sequence[T], *names: str, maximum: int = MAX_ITEMS, default: int | None = None
) -> Page[T]:
    """Return the page of ``entries`` that the query selects.

    ``names`` are the query parameters that may hold the limit. The first of them with a value other than 0 counts.
    Raises BadQuery if a parameter is not a whole number.
    """
    offset, limit = bounds(call, *names, maximum=maximum, default=default)
    items = entries[offset : offset + limit]
    info = PageInfo(next_marker=offset + len(items), previous_marker=max(0, offset - limit), current_count=len(items))
    return Page(items=items, count=len(entries), info=info)


def bounds(call: Call, *names: str, maximum: int, default: int | None = None) -> tuple[int, int]:
    """Return the offset of the first entry and the largest number of entries, as the query selects them.

    ``names`` are the query parameters that may hold this number. Raises BadQuery if a parameter is not a whole number.
    """
    limits = [call.number(name, 0) for name in names]
    return call.number("marker", 0), min(next(filter(None, limits), default or maximum), maximum)


def show_place(place: Place | None) -> str:
    """Return a place in a scan as text. The begin of a scan is ``0``, its end is empty."""
    if place is None or place == FIRST:
        return "" if place is None else "0"
    return f"{place[0]}:{place[1]!r}:{place[2]}"


def read_place(text: str, field: str = "marker") -> Place:
    """Return the place in a text. Raise InvalidField, which names ``field``, if the text is none."""
    if text in ("", "0"):
        return FIRST
    match = _PLACE.fullmatch(text)
    if match is None or int(match[3]) > LAST_KEY:
        raise InvalidField(field, text, f"must be the next_{field} of the previous step, or empty")
    return int(match[1]), float(match[2]), int(match[3])
