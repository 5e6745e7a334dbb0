"""HTTP endpoints at which one request pushes events for several triggers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from engine import (
    Event,
    EventSink,
    FunctiondError,
    FunctionDisabled,
    IdempotencyConflict,
    InvalidField,
    NotFound,
    Operation,
    Overloaded,
    PayloadTooLarge,
    Reply,
)

_ONLY_POST = b'{"error_code":"FSS.0405","error_msg":"method not allowed; use POST"}'
ONLY_POST = Reply(status=405, body=_ONLY_POST, headers=((b"Allow", b"POST"),))
#: Lists, objects and keys of a body. Each becomes an object in memory, and all do so in one step of the loop.
MOST_VALUES = 50_000
STEP = 100  #: steps of a body's work until other work of the loop has its turn

#: Events call functions, and are no changes of the configuration.
_PUSH: dict[str, Any] = {"roles": ("invoke",), "data": True}


class Accepted(Struct, frozen=True, kw_only=True):
    accepted: int  #: number of accepted events, counted for each trigger


def accepted_reply(accepted: int, status: int = 202) -> Reply:
    return Reply(status=status, body=msgspec.json.encode(Accepted(accepted=accepted)))


def push_operation(name: str, path: str, status: int = 202) -> Operation:
    """Return the description of a push endpoint for the API's document.

    The body is one event or a list, in the format of the service that sends it.
    """
    body = dict[str, Any] | list[dict[str, Any]]
    return Operation(name=name, method="POST", path=path, body=body, reply=Accepted, status=status, own=True, **_PUSH)


def decode_json(body: bytes, kind: Any = Any) -> Any:
    """Decode a body of JSON. Raises InvalidField if it is no ``kind``, or has more than ``MOST_VALUES``."""
    try:
        return msgspec.json.decode(check_values(body), type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidField("body", body[:100].decode("utf-8", "replace"), f"must be JSON ({error})") from None


def check_values(body: bytes) -> bytes:
    """Return a body of JSON. Raises InvalidField if it has more than ``MOST_VALUES``."""
    if sum(map(body.count, (b"[", b"{", b":"))) > MOST_VALUES:
        raise InvalidField("body", f"of {len(body)} bytes", "has too many values: send several smaller bodies")
    return body


async def accept_one(sink: EventSink, event: Event, status: int) -> Reply:
    """Accept an event, and return the reply to its sender. A repeated event gets 200, whatever its content."""
    try:
        request_id = await sink.accept(event)
    except IdempotencyConflict:
        return Reply(body=b'{"duplicate":true}')
    return Reply(status=status, body=msgspec.json.encode({"request_id": request_id}))


async def accept_each(pairs: Iterable[tuple[EventSink, Event] | None]) -> int:
    """Accept each event separately through its event sink, and return the number of accepted events.

    ``pairs`` has None for an event that a trigger does not want. A rejection by one trigger does not affect the others.
    At the end, one rejection is raised, a temporary one if there is any. Events have idempotency keys, so the sender
    may then repeat the whole request.
    """
    accepted = 0
    temporary: FunctiondError | None = None
    permanent: FunctiondError | None = None
    for place, pair in enumerate(pairs):
        if place % STEP == STEP - 1:
            await asyncio.sleep(0)
        if pair is None:
            continue
        sink, event = pair
        try:
            with suppress(IdempotencyConflict):
                await sink.accept(event)
        except (FunctionDisabled, Overloaded) as refusal:
            temporary = temporary or refusal
        except (NotFound, PayloadTooLarge) as refusal:
            permanent = permanent or refusal
        else:
            accepted += 1
    if (refused := temporary or permanent) is not None:
        raise refused
    return accepted
