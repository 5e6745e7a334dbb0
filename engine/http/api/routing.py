"""Routing of API requests to handlers.

A Resource is a path with one handler for each HTTP method. A handler receives a Call (the request) and returns a Reply.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol
from urllib.parse import parse_qsl

from msgspec import Struct
from msgspec.structs import replace
from starlette.routing import Route, Router

from engine.asgi.error_replies import not_allowed
from engine.asgi.ignored_fields import IgnoredFields, find_ignored
from engine.asgi.streaming import Stream, stream
from engine.asgi.wire import (
    NO_STORE,
    App,
    Receive,
    Reply,
    Scope,
    Send,
    check_json_type,
    check_utf8,
    read_body,
    read_pieces,
    respond,
)
from engine.auth.roles import PRINCIPAL, Principal
from engine.auth.verifier import address_of
from engine.code.upload import Upload
from engine.errors import AccessDenied, BadQuery, InvalidField, NotFound, NotJson
from engine.http.api.decoding import T, decode
from engine.model.urn import FunctionUrn, parse_urn

#: Limits of bodies in bytes. Each has room for the longest allowed texts, even with every character escaped.
SHORT_LIMIT = 64 << 10  #: bodies of a few short fields
LONG_LIMIT = 256 << 10  #: descriptions, such as that of a trigger
BODY_LIMIT = 1 << 20  #: searches, and fields beside code
AT_ONCE = 64 << 10  #: bytes of a body with code that is read as any other
BASE = "/v2/{project_id}/fgs"
#: Key in the ASGI scope: error of the request, if its handler replied to it instead of raising it.
ERROR = "functiond.error"

_PROJECT = re.compile(r"[\w-]{1,64}", re.ASCII)


class Call:
    """Request to the API, as its handler receives it."""

    def __init__(self, scope: Scope, receive: Receive, region: str) -> None:
        self.scope, self.receive, self._region = scope, receive, region
        self.parts: Mapping[str, str] = scope["path_params"]  #: parameters of the path, by name
        self.project = check_project(self.parts["project_id"]) if "project_id" in self.parts else ""
        self.method: str = scope["method"]
        self.path = (scope["raw_path"] + b"?" + scope["query_string"]).decode("latin-1").rstrip("?")
        self.address: str = address_of(scope)
        #: identity by the request's credentials; None if no credentials are needed
        self.principal: Principal | None = scope.get(PRINCIPAL)
        self.body = b""  #: empty until ``read``
        self.ignored: list[str] = []  #: fields of the body that the operation does not have
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._query: dict[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))

    @property
    def urn(self) -> FunctionUrn:
        return own_urn(self.part("function_urn"), self.project, self._region)

    def part(self, name: str) -> str:
        """Return the value of the placeholder ``{name}`` in the resource's path."""
        return self.parts[name]

    def text(self, name: str) -> str:
        """Return the query parameter ``name`` as text; empty if it is absent."""
        return self._query.get(name, "")

    def number(self, name: str, default: int) -> int:
        """Return the query parameter ``name`` as a number; ``default`` if it is absent or empty.

        Raises BadQuery unless it is a whole number, 0 or more.
        """
        return whole_number(name, self.text(name), default, BadQuery)

    async def read(
        self,
        kind: type[T],
        limit: int = SHORT_LIMIT,
        *,
        empty: T | None = None,
        error: type[InvalidField] = InvalidField,
    ) -> T:
        """Read the request's JSON body and return it as ``kind``. If ``empty`` is given, return it for no body or null.

        Raises PayloadTooLarge if the body has more than ``limit`` bytes; NotJson if it is not JSON, or is empty without
        ``empty``; ClientDisconnect if the client closes the connection before its end; and ``error`` if a field has an
        invalid value.
        """
        self.body = body = await read_body(self.receive, self.headers, limit)
        if empty is not None and body in (b"", b"null"):
            return empty
        return self._decode(body, kind, error)

    async def read_code(
        self, kind: type[T], upload: Upload, limit: int, *, error: type[InvalidField] = InvalidField
    ) -> T:
        """Read a JSON body with code. If it is large, ``upload`` moves the code to disk while it arrives.

        Raises the errors of ``read`` and of ``upload``. A large body is not kept in ``body``.
        """
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) <= AT_ONCE:
            return await self.read(kind, limit, error=error)
        await read_pieces(self.receive, self.headers, limit, upload.feed)
        return self._decode(await upload.end(), kind, error)

    def _decode(self, body: bytes, kind: type[T], error: type[InvalidField]) -> T:
        if not body:
            raise NotJson("the body is empty")
        check_json_type(self.headers)
        check_utf8(body)
        decoded = decode(body, kind, error)
        self.ignored = find_ignored(body, kind)
        return decoded


Handler = Callable[[Call], Awaitable[Reply]]


class Resource(Struct, frozen=True, kw_only=True):
    """Path of the API, with the handler of each HTTP method that it supports."""

    path: str
    methods: Mapping[str, Handler]


class ApiFamily(Protocol):
    """Group of related operations, such as those on functions."""

    def resources(self) -> Iterable[Resource]: ...


def make_router(resources: Iterable[Resource], region: str) -> App:
    """Return an ASGI application that calls the handler for each request's path and method.

    Errors raised by a handler are not caught. They reach the caller of the application before any part of a reply is
    sent.
    """
    ordered, ignored = sorted(resources, key=_precedence), IgnoredFields()
    routes = [_Route(one.path, _Endpoint(one, region, ignored), methods=list(one.methods)) for one in ordered]
    return Router(routes, redirect_slashes=False, default=_unknown)


class _Route(Route):
    """Route whose endpoint is also called for methods that it does not support, and then replies 405.

    If two routes match a path, the one that supports the method is called. Two can match because a function may be
    named ``import``, like the last segment of another path.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class _Endpoint:
    def __init__(self, resource: Resource, region: str, ignored: IgnoredFields) -> None:
        self._path, self._methods, self._region, self._ignored = resource.path, resource.methods, region, ignored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._methods.get(scope["method"])
        if handler is None:
            reply = not_allowed(self._methods)
        else:
            call = Call(scope, receive, self._region)
            reply = await handler(call)
            if call.ignored:
                reported = self._ignored.report(f"{call.method} {self._path}", call.ignored)
                reply = replace(reply, headers=(*reply.headers, *reported))
            if isinstance(reply, Stream):
                await stream(receive, send, reply)
                return
        await respond(scope, send, reply, NO_STORE)


def _precedence(resource: Resource) -> list[bool]:
    """Return a sort key that puts paths with a fixed segment before paths with a placeholder in its position.

    ``/functions/import`` is thus tried before ``/functions/{function_urn}``, which matches the same requests.
    """
    return [part.startswith("{") for part in resource.path.split("/")]


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"no such resource: {scope['path'][:200]} (/openapi.json lists the operations)")


def check_project(project: str) -> str:
    if not _PROJECT.fullmatch(project):
        raise InvalidField("project_id", project, "needs up to 64 letters, digits, - and _")
    return project


def whole_number(field: str, text: str, default: int, error: type[InvalidField] = InvalidField) -> int:
    """Return the number in ``text``; ``default`` if ``text`` is empty.

    Raises ``error``, which names ``field``, unless ``text`` is a whole number, 0 or more.
    """
    text = text or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise error(field, text, "must be a whole number, 0 or more")
    return int(text)


def own_urn(text: str, project: str, region: str) -> FunctionUrn:
    """Return the URN in ``text``.

    Raises InvalidField if the text is not a URN, or ``project`` is not a valid name; AccessDenied if the URN belongs to
    another project than ``project``.
    """
    urn = parse_urn(text, region=region, project=check_project(project))
    if urn.project != project:
        raise AccessDenied(f"{text} belongs to another project than {project}")
    return urn
