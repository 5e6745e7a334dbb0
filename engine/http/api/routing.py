"""The calling convention of the API: a resource is a path and its methods, a handler turns a Call into a Reply."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.routing import Route, Router

from engine.asgi.listener import App, Receive, Scope, Send
from engine.asgi.streaming import Stream, stream
from engine.asgi.wire import Reply, check_json_type, check_utf8, read_body, respond
from engine.errors import BadQuery, Forbidden, InvalidField, NotFound, NotJson
from engine.http.api.decoding import T, decode
from engine.http.api.errors import problem
from engine.model.urn import FunctionUrn, parse_urn
from engine.triggers.routes import PROJECT

#: Bytes of a body. Each limit has room for the longest texts allowed in such a body, even if they are all escapes.
SHORT_LIMIT = 64 << 10  #: of one that names or switches something
LONG_LIMIT = 256 << 10  #: of one that describes something, such as a trigger
BODY_LIMIT = 1 << 20  #: of one that searches, and of what stands beside code
BASE = "/v2/{project_id}/fgs"
CALLER = "functiond.caller"  #: in the scope: whose credentials a request showed

_PROJECT = re.compile(r"[\w-]{1,64}", re.ASCII)


class Call:
    """One request to the API."""

    def __init__(self, scope: Scope, receive: Receive, region: str) -> None:
        self._receive, self._region = receive, region
        self.parts: Mapping[str, str] = scope["path_params"]  #: of the path, by their names
        self.project = check_project(self.parts["project_id"]) if "project_id" in self.parts else ""
        self.method: str = scope["method"]
        self.path = (scope["raw_path"] + b"?" + scope["query_string"]).decode("latin-1").rstrip("?")
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self.caller: str = scope.get(CALLER, "")
        self.own: str = scope.get(PROJECT, "")  #: the project of its credentials; empty where none are needed
        self.body = b""  #: as far as it was read
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._query: dict[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))

    @property
    def urn(self) -> FunctionUrn:
        return own_urn(self.part("function_urn"), self.project, self._region)

    def part(self, name: str) -> str:
        """What stands in the path for ``{name}``."""
        return self.parts[name]

    def text(self, name: str) -> str:
        """A query parameter; empty if it is not there."""
        return self._query.get(name, "")

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a whole number, 0 or more. Raises BadQuery."""
        return whole(name, self.text(name), default, BadQuery)

    async def read(
        self,
        kind: type[T],
        limit: int = SHORT_LIMIT,
        *,
        empty: T | None = None,
        error: type[InvalidField] = InvalidField,
    ) -> T:
        """The body as ``kind``; if there may be none, ``empty``. Raises NotJson, PayloadTooLarge, and ``error``."""
        self.body = body = await read_body(self._receive, self.headers, limit)
        if empty is not None and body in (b"", b"null"):
            return empty
        if not body:
            raise NotJson("it is empty")
        check_json_type(self.headers)
        check_utf8(body)
        return decode(body, kind, error)


Handler = Callable[[Call], Awaitable[Reply]]


class Resource(Struct, frozen=True, kw_only=True):
    """A path and what can be done with it, by method."""

    path: str
    methods: Mapping[str, Handler]


def make_router(resources: Iterable[Resource], region: str) -> App:
    """An ASGI application whose errors are for the caller to catch: nothing has been sent by then."""
    ordered = sorted(resources, key=_precedence)
    routes = [_Route(one.path, _Endpoint(one, region), methods=list(one.methods)) for one in ordered]
    return Router(routes, redirect_slashes=False, default=_unknown)


class _Route(Route):
    """Where the method is another, a later path may still have it: functions may be called ``import``."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class _Endpoint:
    def __init__(self, resource: Resource, region: str) -> None:
        self._methods, self._region = resource.methods, region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._methods.get(scope["method"])
        if handler is None:
            allowed = ", ".join(self._methods)
            reply = problem(405, "FSS.0405", f"use {allowed} here", ((b"allow", allowed.encode()),))
        else:
            reply = await handler(Call(scope, receive, self._region))
            if isinstance(reply, Stream):
                await stream(receive, send, reply)
                return
        await respond(scope, send, reply)


def _precedence(resource: Resource) -> list[bool]:
    """A literal part of a path goes before a ``{name}``, which would swallow it."""
    return [part.startswith("{") for part in resource.path.split("/")]


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"no such resource: {scope['path'][:200]} (/openapi.json lists the operations)")


def check_project(project: str) -> str:
    if not _PROJECT.fullmatch(project):
        raise InvalidField("project_id", project, "needs up to 64 letters, digits, - and _")
    return project


def whole(field: str, text: str, default: int, error: type[InvalidField] = InvalidField) -> int:
    """A number that came as text; ``default`` if there is none. Raises ``error``."""
    text = text or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise error(field, text, "must be a whole number, 0 or more")
    return int(text)


def own_urn(text: str, project: str, region: str) -> FunctionUrn:
    """A URN from a path, which must not reach into another project. Raises InvalidField, Forbidden."""
    urn = parse_urn(text, region=region, project=check_project(project))
    if urn.project != project:
        raise Forbidden(f"{text} belongs to another project than {project}")
    return urn
