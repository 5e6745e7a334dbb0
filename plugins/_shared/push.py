"""HTTP endpoints at which one request pushes events for several triggers."""

from __future__ import annotations

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
    NotFound,
    Operation,
    Overloaded,
    PayloadTooLarge,
    Reply,
)

ONLY_POST = Reply(status=405, headers=((b"allow", b"POST"),))


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


async def accept_each(pairs: Iterable[tuple[EventSink, Event]]) -> int:
    """Accept each event separately through its event sink, and return the number of accepted events.

    A rejection by one trigger does not affect the others. At the end, one rejection is raised, a temporary one if there
    is any. Events have idempotency keys, so the sender may then repeat the whole request.
    """
    accepted = 0
    temporary: FunctiondError | None = None
    permanent: FunctiondError | None = None
    for sink, event in pairs:
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
