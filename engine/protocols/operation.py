"""One operation of an HTTP API, as its document tells it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

JSON = "application/json"


class Operation(Struct, frozen=True, kw_only=True):
    name: str
    method: str
    path: str
    body: Any = None  #: a type; None if there is no body
    optional: bool = False  #: the body may be left out
    reply: Any = None  #: a type; None if the reply is empty
    status: int = 200
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    content: str = JSON  #: of the reply
    problem: Any = None  #: the type of a refusal; None: that of the API itself
    own: bool = False  #: not of the platform's API, or of none of its SDK
    lacks: str = ""  #: what this machine has not; the answer is that for an account without it
