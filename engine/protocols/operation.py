"""Description of one operation of the HTTP API: its form, for the OpenAPI document, and the roles that may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from engine.auth.roles import Role

JSON = "application/json"


class Operation(Struct, frozen=True, kw_only=True):
    name: str
    method: str
    path: str
    body: Any = None  #: type of the body; None: no body
    optional: bool = False  #: the request may have no body
    reply: Any = None  #: type of the reply; None: empty reply
    status: int = 200
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    content: str = JSON  #: content type of the reply
    problem: Any = None  #: type of an error reply; None: error type of the API
    own: bool = False  #: an operation of functiond: the vendor's API or its SDK does not have it
    roles: tuple[Role, ...] = ()  #: roles that may use it, besides admin
    payloads: bool = False  #: shows payloads: the role read needs ``payloads = true``
    hidden: Mapping[Role, tuple[str, ...]] = {}  #: fields of the reply that a role without payloads does not get
    data: bool = False  #: works on events or records, not on configuration, so it is not traced
    lacks: str = ""  #: missing feature; the reply is the vendor's reply to an account without the feature
