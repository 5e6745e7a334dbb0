"""Description of an HTTP API operation, for the API document."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

JSON = "application/json"


class Operation(Struct, frozen=True, kw_only=True):
    name: str
    method: str
    path: str
    body: Any = None  #: type of the body; None: no body
    optional: bool = False  #: the body may be left out
    reply: Any = None  #: type of the reply; None: empty reply
    status: int = 200
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    content: str = JSON  #: content type of the reply
    problem: Any = None  #: type of an error reply; None: the API's own type
    own: bool = False  #: not part of the vendor's API, or not of its SDK
    lacks: str = ""  #: feature that this engine does not have; the reply is that for an account without it
