"""One call of the embedded streams' API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from engine import PushRequest


class Call(Struct, frozen=True, kw_only=True):
    project: str
    names: tuple[str, ...]  #: what stands in the variable places of the path
    request: PushRequest


Answer = tuple[int, Any]  #: status, and what becomes the body: nothing for None
Handler = Callable[[Call], Awaitable[Answer]]
