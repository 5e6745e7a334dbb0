"""APIs that plugins serve at the vendor's own paths: operations, choice of their handlers, and parsing of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from engine import Operation, PushRequest, Role

T = TypeVar("T")


class Call(Struct, frozen=True, kw_only=True):
    """Request for an operation of a vendor's API, with the values of the variables in its path."""

    project: str
    names: tuple[str, ...]  #: values of the path's variables, without the project
    request: PushRequest


INVOKE: tuple[Role, ...] = ("invoke",)
READ: tuple[Role, ...] = ("read",)
Answer = tuple[int, Any]  #: status and body, the latter None if empty
Handler = Callable[[Call], Awaitable[Answer]]
#: returns the service's own error for a description of the problem
Refuse = Callable[[str], Exception]


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


class Table:
    """Operations of a service. Finds the handler of a request.

    Each key is a template: ``GET v2 streams {stream_name}`` stands for ``/v2/{project_id}/streams/{stream_name}``.
    Words and variables alternate after the project. A word in the place of a variable must be in the request. With
    ``skip`` 1, as for ``notifications topics {topic_urn}``, they alternate only after the first word, which is not
    compared, because the plugin's routes lead only paths with this word here.
    """

    def __init__(self, offers: Mapping[str, Offer], skip: int = 0) -> None:
        self.offers, self._skip = offers, skip
        self.operations = [_operation(template, offer) for template, offer in offers.items()]
        self._handlers: dict[str, tuple[Handler, Sequence[str]]] = {}  #: with the words of the template
        for template, offer in offers.items():
            method, version, *words = template.split()
            self._handlers[_name(method, version, words[skip:])] = offer.handler, words[skip:]

    async def answer(self, request: PushRequest, refuse: Callable[[int, str], Exception]) -> Answer:
        """Call the handler of the request's operation, and return its answer.

        ``refuse`` returns the service's own exception for a status and a text. That exception is raised with 403 if the
        credentials are for another project, and with 404 if there is no such operation.
        """
        _, version, project, *words = request.path.rstrip("/").split("/")
        words = words[self._skip :]
        if request.project and request.project != project:
            raise refuse(403, f"these credentials are for project {request.project} only")
        found = self._handlers.get(_name(request.method, version, words))
        if found is None or not _fits(found[1], words):
            raise refuse(404, "the embedded service does not have this operation")
        handler, _ = found
        return await handler(Call(project=project, names=tuple(words[1::2]), request=request))


def decode_body(request: PushRequest, type_: type[T], refuse: Refuse) -> T:
    try:
        return msgspec.json.decode(request.body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse(str(error)) from None


def decode_query(request: PushRequest, type_: type[T], refuse: Refuse) -> T:
    given: Mapping[str, str] = dict(parse_qsl(request.query))
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise refuse(str(error)) from None


def _fits(template: Sequence[str], words: Sequence[str]) -> bool:
    return all(fixed.startswith("{") or fixed == word for fixed, word in zip(template, words, strict=True))


def _name(method: str, version: str, words: Sequence[str]) -> str:
    return " ".join([method, version, *("*" if index % 2 else word for index, word in enumerate(words))])


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
