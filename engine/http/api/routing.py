"""Operations of the API, as the methods of families declare them, and routing of requests to these methods.

A family is a class with related operations, such as those on aliases. The decorator ``operation`` of a method is the
only place that tells about an operation: its path, body, roles, trace and documentation. Routes, checks, traces, the
OpenAPI document and the page ``api.md`` are derived from it. A method gets a Call (the request).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack, overload
from urllib.parse import parse_qsl

from msgspec import Struct, json
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
from engine.auth.roles import OPERATOR, PRINCIPAL, Principal, Role
from engine.auth.verifier import address_of
from engine.code.receiving import Upload
from engine.code.store import PACKAGE_LIMIT
from engine.errors import (
    AccessDenied,
    BadQuery,
    FieldsTooLarge,
    FunctiondError,
    InvalidField,
    NotFound,
    NotJson,
    PayloadTooLarge,
)
from engine.http.api.decoding import decode
from engine.model.urn import FunctionUrn, parse_urn
from engine.protocols import Operation

#: Limits of bodies in bytes. Each has room for the longest allowed texts, even with every character escaped.
SHORT_LIMIT = 64 << 10  #: bodies of a few short fields
LONG_LIMIT = 256 << 10  #: descriptions, such as that of a trigger
BODY_LIMIT = 1 << 20  #: searches, and fields beside code
CODE_LIMIT = PACKAGE_LIMIT * 4 // 3 + BODY_LIMIT  #: code in base64
AT_ONCE = 64 << 10  #: bytes of a body with code that is read as any other
BASE = "/v2/{project_id}/fgs"
FUNCTIONS = f"{BASE}/functions"
FUNCTION = f"{FUNCTIONS}/{{function_urn}}"
READ: tuple[Role, ...] = ("read",)
INVOKE: tuple[Role, ...] = ("invoke",)
INVOKE_OR_READ: tuple[Role, ...] = ("invoke", "read")
ALL_ROLES: tuple[Role, ...] = (*INVOKE_OR_READ, *OPERATOR)
JSON_LINES = b"application/x-ndjson"
#: Key in the ASGI scope: error of the request, if its handler replied to it instead of raising it.
ERROR = "functiond.error"

_PROJECT = re.compile(r"[\w-]{1,64}", re.ASCII)

B = TypeVar("B", covariant=True)
Family = TypeVar("Family")
Given = TypeVar("Given", bound="Call")
R = TypeVar("R")
Returned = TypeVar("Returned")


class ApiOperation(Operation, frozen=True, kw_only=True):
    """Operation of this API, with what its handler and its traces need to know besides."""

    limit: int = SHORT_LIMIT  #: bytes of the body
    error: type[InvalidField] = InvalidField  #: raised if a field of the body has an invalid value
    choices: Mapping[str, tuple[str, ...]] = {}  #: allowed values of placeholders of the path
    traced: bool  #: leaves an audit trace, as it changes something


class _Details(TypedDict, total=False):
    """Fields of ApiOperation that most operations leave out."""

    optional: bool
    status: int
    query: tuple[str, ...]
    headers: tuple[str, ...]
    content: str
    problem: Any
    own: bool
    roles: tuple[Role, ...]
    hidden: Mapping[Role, tuple[str, ...]]
    lacks: str
    limit: int
    error: type[InvalidField]
    choices: Mapping[str, tuple[str, ...]]
    traced: bool


class Call:
    """Request, as its handler receives it. ``operation`` is None for pages of the console."""

    def __init__(self, scope: Scope, receive: Receive, region: str, operation: ApiOperation | None = None) -> None:
        self.scope, self.receive, self.region, self.operation = scope, receive, region, operation
        self.parts: Mapping[str, str] = scope["path_params"]  #: parameters of the path, by name
        self.project = check_project(self.parts["project_id"]) if "project_id" in self.parts else ""
        self.method: str = scope["method"]
        self.path = whole_path(scope)
        self.address: str = address_of(scope)
        #: identity by the request's credentials; None if no credentials are needed
        self.principal: Principal | None = scope.get(PRINCIPAL)
        self.body = b""  #: empty until ``read``
        self.ignored: list[str] = []  #: fields of the body that the operation does not have
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._query: dict[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))

    @property
    def urn(self) -> FunctionUrn:
        return own_urn(self.part("function_urn"), self.project, self.region)

    def part(self, name: str) -> str:
        """Return the value of the placeholder ``{name}`` in the resource's path."""
        return self.parts[name]

    def choice(self, name: str) -> str:
        """Return the value of a placeholder whose choices the operation declares. Raises InvalidField for another."""
        allowed = self.operation.choices[name] if self.operation is not None else ()
        if (value := self.part(name)) not in allowed:
            raise InvalidField(name, value, f"must be {' or '.join(allowed)}")
        return value

    def text(self, name: str) -> str:
        """Return the query parameter ``name`` as text; empty if it is absent.

        Raises LookupError if the operation does not declare this parameter.
        """
        if self.operation is not None and name not in self.operation.query:
            raise LookupError(f"{self.operation.name} does not declare the query parameter {name}")
        return self._query.get(name, "")

    def given(self, name: str) -> str | None:
        """Return the query parameter ``name`` as text, as ``text`` does, but None if it is absent."""
        return self.text(name) if name in self._query else None

    def number(self, name: str, default: int) -> int:
        """Return the query parameter ``name`` as a number; ``default`` if it is absent or empty.

        Raises BadQuery unless it is a whole number, 0 or more.
        """
        return whole_number(name, self.text(name), default, BadQuery)


class BodyCall(Call, Generic[B]):
    """Request to an operation that has a body of the type ``B``."""

    operation: ApiOperation

    async def read(self, limit: int | None = None) -> B:
        """Read the request's JSON body. ``limit`` takes the place of the operation's, if it is in the settings.

        If the body is optional, its default stands for no body and for null. Raises PayloadTooLarge if it is larger
        than the limit; NotJson if it is not JSON; ClientDisconnect if the client closes the connection before its end;
        and the ``error`` of the operation if a field has an invalid value.
        """
        self.body = body = await read_body(self.receive, self.headers, limit or self.operation.limit)
        if self.operation.optional and body in (b"", b"null"):
            default: B = self.operation.body()
            return default
        return self._decode(body)

    async def read_code(self, upload: Upload, too_large: FunctiondError | None = None) -> B:
        """Read a JSON body with code. If it is large, ``upload`` moves the code to disk while it arrives.

        Raises the errors of ``read`` and of ``upload``, but ``too_large``, if given, if the code makes the body too
        large. A large body is not kept in ``body``.
        """
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) <= AT_ONCE:
            return await self.read()
        try:
            await read_pieces(self.receive, self.headers, self.operation.limit, upload.feed)
        except PayloadTooLarge as error:
            if too_large is None or isinstance(error, FieldsTooLarge):
                raise
            raise too_large from None
        return self._decode(await upload.end())

    def _decode(self, body: bytes) -> B:
        if not body:
            raise NotJson("the body is empty")
        check_json_type(self.headers)
        check_utf8(body)
        kind: type[B] = self.operation.body
        decoded = decode(body, kind, self.operation.error)
        self.ignored = find_ignored(body, kind)
        return decoded


Handler = Callable[[Call], Awaitable[Reply]]
_Method = Callable[[Family, Given], Coroutine[Any, Any, Returned]]
_Declared = Callable[[_Method[Family, Given, Returned]], _Method[Family, Given, Reply]]


@overload
def operation(
    name: str, method: str, path: str, body: None = None, reply: None = None, **details: Unpack[_Details]
) -> Callable[[_Method[Family, Call, Reply | None]], _Method[Family, Call, Reply]]: ...


@overload
def operation(
    name: str, method: str, path: str, body: None = None, *, reply: type[R], **details: Unpack[_Details]
) -> _Declared[Family, Call, R | Reply]: ...


@overload
def operation(
    name: str, method: str, path: str, body: type[B], reply: None = None, **details: Unpack[_Details]
) -> _Declared[Family, BodyCall[B], Reply | None]: ...


@overload
def operation(
    name: str, method: str, path: str, body: type[B], reply: type[R], **details: Unpack[_Details]
) -> _Declared[Family, BodyCall[B], R | Reply]: ...


def operation(name: str, method: str, path: str, body: Any = None, reply: Any = None, **details: Any) -> Any:
    """Declare that a method of a family serves an operation. A method may serve several.

    The method returns the body of the reply, as declared by ``reply``, or a whole Reply. ``details`` are further fields
    of the operation. Any operation but a GET is traced unless they say otherwise.
    """
    details = {"traced": method != "GET", **details}
    declared = ApiOperation(name=name, method=method, path=path, body=body, reply=reply, **details)

    def declare(handler: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Reply]]:
        @wraps(handler)
        async def handle(family: Any, call: Call) -> Reply:
            result = await handler(family, call)
            if isinstance(result, Reply):
                return result
            return Reply(status=declared.status, body=b"" if result is None else json.encode(result))

        handle.operations = (declared, *getattr(handler, "operations", ()))  # type: ignore[attr-defined]
        return handle

    return declare


def read(name: str, path: str, reply: type[R], **details: Unpack[_Details]) -> _Declared[Family, Call, R | Reply]:
    """Declare an operation that reads something: a GET, for the role read unless ``details`` name the roles."""
    details.setdefault("roles", READ)
    return operation(name, "GET", path, None, reply=reply, **details)


class Subject(Struct, frozen=True):
    """Type of a resource in audit traces, and names of the fields that may hold its id and its name.

    Path, reply and request body are searched for each field name, in this order.
    """

    type: str
    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class ServedOperation(Struct, frozen=True):
    """Operation with the handler of its requests."""

    operation: Operation
    handler: Handler


class ApiFamily:
    """Group of related operations, such as those on functions. ``subject`` is the resource that they change."""

    subject: ClassVar = Subject("function", ("func_urn", "function_urn", "resource_id"), ("func_name", "resource_id"))

    @classmethod
    def operations(cls) -> Iterator[tuple[ApiOperation, str]]:
        """Yield the operations, each with the name of the method that serves it."""
        for name, member in vars(cls).items():
            for declared in getattr(member, "operations", ()):
                yield declared, name

    def served(self) -> list[ServedOperation]:
        """Return the operations with their methods as handlers."""
        return [ServedOperation(declared, getattr(self, name)) for declared, name in self.operations()]


def make_router(served: Iterable[ServedOperation], region: str) -> App:
    """Return an ASGI application that calls the handler for each request's path and method.

    Errors raised by a handler are not caught. They reach the caller of the application before any part of a reply is
    sent.
    """
    paths: dict[str, dict[str, ServedOperation]] = {}
    for each in served:
        paths.setdefault(each.operation.path, {})[each.operation.method] = each
    ignored = IgnoredFields()
    routes = [
        _Route(path, _Endpoint(methods, region, ignored), methods=list(methods))
        for path, methods in sorted(paths.items(), key=_precedence)
    ]
    return Router(routes, redirect_slashes=False, default=_unknown)


class _Route(Route):
    """Route whose endpoint is also called for methods that it does not support, and then replies 405.

    If two routes match a path, the one that supports the method is called. Two can match because a function may be
    named ``import``, like the last segment of another path.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class _Endpoint:
    def __init__(self, methods: Mapping[str, ServedOperation], region: str, ignored: IgnoredFields) -> None:
        self._methods, self._region, self._ignored = methods, region, ignored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = self._methods.get(scope["method"])
        if served is None:
            reply = not_allowed(self._methods, max(each.operation.lacks for each in self._methods.values()))
        else:
            declared = served.operation if isinstance(served.operation, ApiOperation) else None
            call: BodyCall[Any] = BodyCall(scope, receive, self._region, declared)
            reply = await served.handler(call)
            if call.ignored:
                reported = self._ignored.report(f"{call.method} {served.operation.path}", call.ignored)
                reply = replace(reply, headers=(*reply.headers, *reported))
            if isinstance(reply, Stream):
                await stream(receive, send, reply)
                return
        await respond(scope, send, reply, NO_STORE)


def _precedence(served: tuple[str, object]) -> list[bool]:
    """Return a sort key that puts paths with a fixed segment before paths with a placeholder in its position.

    ``/functions/import`` is thus tried before ``/functions/{function_urn}``, which matches the same requests.
    """
    return [part.startswith("{") for part in served[0].split("/")]


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"no such resource: {scope['path'][:200]} (/openapi.json lists the operations)")


def whole_path(scope: Scope) -> str:
    """Return the path and the query of a request as received."""
    whole: bytes = scope["raw_path"] + b"?" + scope["query_string"]
    return whole.decode("latin-1").rstrip("?")


def check_role(scope: Scope, used: Operation) -> None:
    """Raise AccessDenied unless the request's credentials, if it needs any, may use the operation."""
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is not None and principal.role != "admin":
        principal.check(used.name, used.roles, payloads=used.payloads)


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
