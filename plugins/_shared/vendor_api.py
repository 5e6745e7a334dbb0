"""APIs that plugins serve at the vendor's own paths: operations, choice of their handlers, and parsing of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import fields, replace

from engine import EVENT_LIMIT, IgnoredFields, Operation, PluginContext, PushRequest, Reply, Role, find_ignored


class Call(NamedTuple):
    """Request for an operation of a vendor's API."""

    project: str
    request: PushRequest


class VendorProblem(Exception):
    """Refusal of a request, in the form of a vendor's service: that of most, or of a class of its own."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code} {message}")

    def reply(self) -> Reply:
        return encoded(self.status, {"error_code": self.code, "error_msg": self.message})


INVOKE: tuple[Role, ...] = ("invoke",)
READ: tuple[Role, ...] = ("read",)
Answer = tuple[int, Any]  #: status and body, the latter None if empty
#: called with a ``Call``, the values of the path's variables, and the decoded body and query, if the operation has them
Handler = Callable[..., Awaitable[Answer]]
#: returns the service's own error for a description of the problem
Refuse = Callable[[str], VendorProblem]


class Offer(NamedTuple):
    """Handler of an operation of a vendor's API, with its description for the API's document.

    ``body`` and ``query`` are the types that the handler gets. ``refuse`` returns the error if one of them is invalid,
    unless it is the service's. ``roles`` may use the operation, besides admin.
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
    refuse: Refuse | None = None


class _Route(NamedTuple):
    words: Sequence[str]  #: of the template, after the project
    offer: Offer
    operation: Operation


def encoded(status: int, body: Any) -> Reply:
    return Reply(status=status, body=b"" if body is None else msgspec.json.encode(body))


class Table:
    """Operations of a service. Replies to requests.

    Each key is a template: ``GET v2 streams {stream_name}`` stands for ``/v2/{project_id}/streams/{stream_name}``.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        refuse: Callable[[int, str], VendorProblem],
        invalid: Refuse,
        *,
        encode: Callable[[int, Any], Reply] = encoded,
        unpack: Callable[[PushRequest], bytes] = attrgetter("body"),
    ) -> None:
        """Take the service's own errors: ``refuse`` for a status and a text, ``invalid`` for a body or query.

        ``encode`` returns the reply for an answer, ``unpack`` the body of a request.
        """
        self.offers, self._refuse, self._invalid = offers, refuse, invalid
        self._encode, self._unpack = encode, unpack
        self.operations: list[Operation] = []
        self._routes: dict[tuple[str, str, int], list[_Route]] = {}  #: by version, first word and number of words
        for template, offer in offers.items():
            method, version, *words = template.split()
            self.operations.append(_operation(method, "/".join(["", version, "{project_id}", *words]), offer))
            route = _Route(words, offer, self.operations[-1])
            self._routes.setdefault((version, words[0], len(words)), []).append(route)
        self._ignored = IgnoredFields()

    def served(self, context: PluginContext, limit: int = EVENT_LIMIT, *others: str) -> AbstractContextManager[None]:
        """Serve the operations at their paths until the block ends, with bodies of at most ``limit`` bytes.

        ``others`` are further heads of paths (``v2/stream``), below which the service has no operations.
        """
        heads = dict.fromkeys(f"{version}/{word}" for version, word, _ in self._routes)
        return context.routes.claim(*heads, *others, handler=self.answer, operations=self.operations, limit=limit)

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
        if request.project and request.project != project:
            raise self._refuse(403, f"these credentials are for project {request.project} only")
        similar = self._routes.get((version, words[0], len(words)), ())
        routes = {route.operation.method: route for route in similar if _fits(route.words, words)}
        if not routes:
            raise self._refuse(404, "the embedded service does not have this operation")
        route = routes.get(request.method)
        if route is None:
            return self._not_allowed(routes)
        names = [word for fixed, word in zip(route.words, words, strict=True) if fixed.startswith("{")]
        decoded, ignored = self._decoded(route.offer, request)
        reply = self._encode(*await route.offer.handler(Call(project, request), *names, *decoded))
        headers = self._ignored.report(f"{request.method} {route.operation.path}", ignored)
        return replace(reply, headers=(*reply.headers, *headers))

    def _decoded(self, offer: Offer, request: PushRequest) -> tuple[Sequence[Struct], Sequence[str]]:
        """Return body and query, as far as the operation has them, and the fields of the body that it does not have."""
        decoded, ignored = list[Struct](), list[str]()
        try:
            if offer.body is not None:
                body = self._unpack(request)
                decoded.append(msgspec.json.decode(body, type=offer.body))
                ignored = find_ignored(body, offer.body)
            if offer.query is not None:
                decoded.append(msgspec.convert(dict(parse_qsl(request.query)), offer.query, strict=False))
        except (msgspec.DecodeError, RecursionError) as error:
            raise (offer.refuse or self._invalid)(str(error)) from None
        return decoded, ignored

    def _not_allowed(self, methods: Collection[str]) -> Reply:
        allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)  # HEAD is served as GET
        reply = self._refuse(405, f"method not allowed; use {allowed}").reply()
        return replace(reply, headers=(*reply.headers, (b"Allow", allowed.encode())))


def _fits(template: Sequence[str], words: Sequence[str]) -> bool:
    return all(fixed.startswith("{") or fixed == word for fixed, word in zip(template, words, strict=True))


def _operation(method: str, path: str, offer: Offer) -> Operation:
    return Operation(
        name=offer.name,
        method=method,
        path=path,
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
