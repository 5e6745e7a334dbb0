"""Lists that come in pages: where the query says to begin, and how many entries it may have at once.

Asking for 0 entries means the usual number, for more than the most means the most (spec functiongraph_api, sections 3
and 4.1). The marker of the next page is where this one ends, so a client that reads on stops when it stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from engine.http.api.routing import Call

T = TypeVar("T")

MAX_ITEMS = 400  #: of what functions are made of: they themselves, versions, dependencies
MAX_LIMIT = 500  #: of most others
MAX_SETTINGS = 100
MAX_TAGGED = 1_000


class PageInfo(Struct, frozen=True, kw_only=True):
    next_marker: int
    previous_marker: int
    current_count: int


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    items: Sequence[T]
    count: int  #: of all
    info: PageInfo

    @property
    def next_marker(self) -> int:
        return self.info.next_marker


def page_of(call: Call, found: Sequence[T], *names: str, most: int = MAX_ITEMS, usual: int | None = None) -> Page[T]:
    """The part of ``found`` that the query asks for; ``names`` are those of the number of entries, the first counts."""
    offset, limit = bounds(call, *names, most=most, usual=usual)
    items = found[offset : offset + limit]
    info = PageInfo(next_marker=offset + len(items), previous_marker=max(0, offset - limit), current_count=len(items))
    return Page(items=items, count=len(found), info=info)


def bounds(call: Call, *names: str, most: int, usual: int | None = None) -> tuple[int, int]:
    """Where to begin, and how many. Raises BadQuery."""
    asked = [call.number(name, 0) for name in names]
    return call.number("marker", 0), min(next(filter(None, asked), usual or most), most)
