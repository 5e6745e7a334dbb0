"""An API that a plugin serves at the vendor's own paths: one call of it, and how its parts are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from engine import Operation, PushRequest

T = TypeVar("T")


class Call(Struct, frozen=True, kw_only=True):
    project: str
    names: tuple[str, ...]  #: what stands in the variable places of the path
    request: PushRequest


Answer = tuple[int, Any]  #: status, and what becomes the body: nothing for None
Handler = Callable[[Call], Awaitable[Answer]]
#: Makes the service's own error of what is wrong.
Refuse = Callable[[str], Exception]


class Offer(NamedTuple):
    """One operation of a service. The document has what its handler reads: the types of its body and its query."""

    handler: Handler
    name: str
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    status: int = 200
    headers: tuple[str, ...] = ()


class Table:
    """All that a service offers, by, say, ``GET v2 streams {stream_name}``: the project stands behind the version.

    ``skip`` words that all paths have there are left out; names stand at every second place of the rest.
    """

    def __init__(self, offers: Mapping[str, Offer], skip: int = 0) -> None:
        self.offers, self._skip = offers, skip
        self.operations = [_operation(place, offer) for place, offer in offers.items()]
        self._handlers: dict[str, Handler] = {}
        for place, offer in offers.items():
            method, version, *words = place.split()
            self._handlers[_name(method, version, words[skip:])] = offer.handler

    async def answer(self, request: PushRequest, refuse: Callable[[int, str], Exception]) -> Answer:
        """``refuse`` makes the service's own error, with a status."""
        _, version, project, *words = request.path.rstrip("/").split("/")
        words = words[self._skip :]
        if request.project and request.project != project:
            raise refuse(403, f"these credentials are for project {request.project} only")
        handler = self._handlers.get(_name(request.method, version, words))
        if handler is None:
            raise refuse(404, "the embedded service does not offer this")
        return await handler(Call(project=project, names=tuple(words[1::2]), request=request))


def read_body(request: PushRequest, type_: type[T], refuse: Refuse) -> T:
    try:
        return msgspec.json.decode(request.body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse(str(error)) from None


def read_query(request: PushRequest, type_: type[T], refuse: Refuse) -> T:
    given: Mapping[str, str] = dict(parse_qsl(request.query))
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise refuse(str(error)) from None


def _name(method: str, version: str, words: Sequence[str]) -> str:
    return " ".join([method, version, *("*" if place % 2 else word for place, word in enumerate(words))])


def _operation(place: str, offer: Offer) -> Operation:
    method, version, *words = place.split()
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
    )
