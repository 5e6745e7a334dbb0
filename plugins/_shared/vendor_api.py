"""APIs that plugins serve at the vendor's own paths: operations, choice of their handlers, and parsing of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import fields, replace

from engine import IgnoredFields, Operation, PushRequest, Reply, Role, find_ignored

T = TypeVar("T")


class Call(Struct, frozen=True, kw_only=True):
    """Request for an operation of a vendor's API, with the values of the variables in its path."""

    project: str
    names: tuple[str, ...]  #: values of the path's variables, without the project
    request: PushRequest
    ignored: list[str] = []  #: fields of the body that the operation does not have


class VendorProblem(Exception):
    """Refusal of a request, in the form of a vendor's service."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code} {message}")

    def reply(self) -> Reply:
        raise NotImplementedError


INVOKE: tuple[Role, ...] = ("invoke",)
READ: tuple[Role, ...] = ("read",)
Answer = tuple[int, Any]  #: status and body, the latter None if empty
Handler = Callable[[Call], Awaitable[Answer]]
#: returns the service's own error for a description of the problem
Refuse = Callable[[str], VendorProblem]


class Offer(NamedTuple):
    """Handler of an operation of a vendor's API, with its description for the API's document.

    ``body`` and ``query`` are the types that the handler reads. ``roles`` may use the operation, besides admin.
    ``payloads``: the operation shows payloads. ``data``: it works on records, not on configuration.
    """

    handler: Handler
    name: str
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    status: int = 200
    headers: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    payloads: bool = False
    data: bool = False


class _Route(NamedTuple):
    words: Sequence[str]  #: of the template, after the project
    handler: Handler
    operation: Operation


def encoded(status: int, body: Any) -> Reply:
    return Reply(status=status, body=b"" if body is None else msgspec.json.encode(body))


class Table:
    """Operations of a service. Replies to requests.

    Each key is a template: ``GET v2 streams {stream_name}`` stands for ``/v2/{project_id}/streams/{stream_name}``.
    Words and variables alternate after the project. A word in the place of a variable must be in the request. With
    ``skip`` 1, as for ``notifications topics {topic_urn}``, they alternate only after the first word, which is not
    compared, because the plugin's routes lead only paths with this word here.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        refuse: Callable[[int, str], VendorProblem],
        *,
        skip: int = 0,
        encode: Callable[[int, Any], Reply] = encoded,
    ) -> None:
        """``refuse`` returns the service's own error for a status and a text, ``encode`` the reply for an answer."""
        self.offers, self._refuse, self._skip, self._encode = offers, refuse, skip, encode
        self.operations = [_operation(template, offer) for template, offer in offers.items()]
        self._routes: dict[str, dict[str, _Route]] = {}  #: by path and method
        for operation, (template, offer) in zip(self.operations, offers.items(), strict=True):
            method, version, *words = template.split()
            route = _Route(words[skip:], offer.handler, operation)
            self._routes.setdefault(_name(version, route.words), {})[method] = route
        self._ignored = IgnoredFields()

    async def answer(self, request: PushRequest) -> Reply:
        """Call the handler of the request's operation, and return the reply.

        The reply is an error of the service: 403 if the credentials are for another project, 404 if there is no such
        path, 405 if the path does not have the method, and those that handlers raise as VendorProblem.
        """
        try:
            return await self._answer(request)
        except VendorProblem as problem:
            return problem.reply()

    async def _answer(self, request: PushRequest) -> Reply:
        _, version, project, *words = request.path.rstrip("/").split("/")
        words = words[self._skip :]
        if request.project and request.project != project:
            raise self._refuse(403, f"these credentials are for project {request.project} only")
        at_path = self._routes.get(_name(version, words), {})
        routes = {method: route for method, route in at_path.items() if _fits(route.words, words)}
        if not routes:
            raise self._refuse(404, "the embedded service does not have this operation")
        route = routes.get(request.method)
        if route is None:
            return self._not_allowed(routes)
        call = Call(project=project, names=tuple(words[1::2]), request=request)
        reply = self._encode(*await route.handler(call))
        ignored = self._ignored.report(f"{request.method} {route.operation.path}", call.ignored)
        return replace(reply, headers=(*reply.headers, *ignored))

    def _not_allowed(self, methods: Collection[str]) -> Reply:
        allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)  # HEAD is served as GET
        reply = self._refuse(405, f"method not allowed; use {allowed}").reply()
        return replace(reply, headers=(*reply.headers, (b"allow", allowed.encode())))


def decode_body(call: Call, type_: type[T], refuse: Refuse, body: bytes | None = None) -> T:
    """Return the decoded body of a request, and note its ignored fields. ``body`` is a body that was decompressed."""
    body = call.request.body if body is None else body
    try:
        decoded = msgspec.json.decode(body, type=type_)
        call.ignored.extend(find_ignored(body, type_))
        return decoded
    except (msgspec.DecodeError, RecursionError) as error:
        raise refuse(str(error)) from None


def decode_query(request: PushRequest, type_: type[T], refuse: Refuse) -> T:
    given: Mapping[str, str] = dict(parse_qsl(request.query))
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise refuse(str(error)) from None


def _fits(template: Sequence[str], words: Sequence[str]) -> bool:
    return all(fixed.startswith("{") or fixed == word for fixed, word in zip(template, words, strict=True))


def _name(version: str, words: Sequence[str]) -> str:
    return " ".join([version, *("*" if index % 2 else word for index, word in enumerate(words))])


def _operation(template: str, offer: Offer) -> Operation:
    method, version, *words = template.split()
    return Operation(
        name=offer.name,
        method=method,
        path="/".join(["", version, "{project_id}", *words]),
        body=offer.body,
        query=tuple(field.encode_name for field in fields(offer.query)) if offer.query else (),
        headers=offer.headers,
        reply=None if offer.status == 204 else dict[str, Any],
        status=offer.status,
        problem=dict[str, Any],
        roles=offer.roles,
        payloads=offer.payloads,
        data=offer.data,
    )
