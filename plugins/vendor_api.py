"""An API that a plugin serves at the vendor's own paths: one call of it, and how its parts are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from engine import PushRequest

T = TypeVar("T")


class Call(Struct, frozen=True, kw_only=True):
    project: str
    names: tuple[str, ...]  #: what stands in the variable places of the path
    request: PushRequest


Answer = tuple[int, Any]  #: status, and what becomes the body: nothing for None
Handler = Callable[[Call], Awaitable[Answer]]
#: Makes the service's own error of what is wrong.
Refuse = Callable[[str], Exception]


async def dispatch(
    handlers: Mapping[str, Handler], request: PushRequest, refuse: Callable[[int, str], Exception], skip: int = 0
) -> Answer:
    """The answer of the handler that the table knows by, say, ``GET v2 streams *``.

    ``skip`` words that all paths have behind the project are left out; names stand at every second place of the rest.
    ``refuse`` makes the service's own error, with a status.
    """
    name, call = _read_call(request, skip)
    if request.project and request.project != call.project:
        raise refuse(403, f"these credentials are for project {request.project} only")
    handler = handlers.get(name)
    if handler is None:
        raise refuse(404, "the embedded service does not offer this")
    return await handler(call)


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


def _read_call(request: PushRequest, skip: int) -> tuple[str, Call]:
    _, version, project, *words = request.path.rstrip("/").split("/")
    words = words[skip:]
    path = " ".join("*" if place % 2 else word for place, word in enumerate(words))
    return f"{request.method} {version} {path}", Call(project=project, names=tuple(words[1::2]), request=request)
