"""Events that a sender pushes for several triggers together."""

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
    PushReply,
)


class Accepted(Struct, frozen=True, kw_only=True):
    accepted: int  #: events, by as many triggers as wanted them


def accepted_reply(accepted: int, status: int = 202) -> PushReply:
    return PushReply(status=status, body=msgspec.json.encode(Accepted(accepted=accepted)))


def push_operation(name: str, path: str, status: int = 202) -> Operation:
    """One event or several, in shapes of the sender's, which no schema tells."""
    body = dict[str, Any] | list[dict[str, Any]]
    return Operation(name=name, method="POST", path=path, body=body, reply=Accepted, status=status, own=True)


async def accept_each(pairs: Iterable[tuple[EventSink, Event]]) -> int:
    """Each on its own: what one function refuses keeps nothing from the others. Gives how many were accepted.

    Events have keys: who gives an id twice means the same event. So the sender, who hears of a refusal at the end,
    may send all of them again; of several refusals it hears of one that goes away.
    """
    accepted = 0
    later: FunctiondError | None = None
    never: FunctiondError | None = None
    for sink, event in pairs:
        try:
            with suppress(IdempotencyConflict):
                await sink.accept(event)
        except (FunctionDisabled, Overloaded) as refusal:
            later = later or refusal
        except (NotFound, PayloadTooLarge) as refusal:
            never = never or refusal
        else:
            accepted += 1
    if (refused := later or never) is not None:
        raise refused
    return accepted
