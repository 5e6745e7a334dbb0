"""Operation that queues many events in few requests."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from functiond.errors import (
    ApiError,
    BadArgument,
    ClientError,
    Overloaded,
    TooLarge,
    Unavailable,
    Unreachable,
    error_class,
)
from functiond.events import Event, Item, batches
from functiond.operations import Operations
from functiond.steps import Sleep, Steps, decoded, retry_after, sent

RETRY_DELAY = 1.0  #: seconds until events without room are sent again, if the engine does not ask for more


class ItemResult(Struct):
    request_id: str = ""
    error_code: str = ""
    error_msg: str = ""


class Sent(Struct, frozen=True):
    """Request ids of accepted events, and errors of refused ones, by position."""

    ids: dict[int, str]
    errors: dict[int, ClientError]


def enqueue_many(operations: Operations, function: str, events: Iterable[object]) -> Steps[Sent]:
    """Queue invocations for all events, in their order. Those without room are sent again, within the client's limits.

    An event that is refused for another reason does not stop the others. If the connection breaks, all that are left
    get the error. Raises Unreachable or ApiError if no event was accepted because of the whole request.
    """
    if isinstance(events, Mapping | str | bytes):
        raise BadArgument(f"events is a {type(events).__name__}: give a list of events")
    keyed = [(one if isinstance(one, Event) else Event(event=one)).with_key() for one in events]
    waiting: Sequence[Item] = [Item(position, event.item()) for position, event in enumerate(keyed)]
    found, limits, accepted, tries, began = Sent({}, {}), operations.limits, 0, 0, time.monotonic()
    while True:
        asked = yield from _send(operations, function, waiting, found)
        delay = max(RETRY_DELAY, asked) * random.uniform(1, 1.5)
        waiting = [item for item in waiting if _may_repeat(found.errors.get(item.position))]
        if len(found.ids) > accepted:
            accepted, tries, began = len(found.ids), 0, time.monotonic()
        tries += 1
        if not waiting or tries > limits.retries or time.monotonic() - began + delay > limits.timeout:
            return found
        yield Sleep(delay)


def _send(operations: Operations, function: str, items: Sequence[Item], found: Sent) -> Steps[float]:
    """Send items once, until there is no room or no connection. All items that are left get this error.

    Return the seconds after which the engine asks for another attempt.
    """
    done, asked = 0, 0.0
    for batch in batches(items):
        done += len(batch)
        try:
            reply = yield from sent(operations.batch(function, [item.body for item in batch]), operations.limits)
            asked = retry_after(reply) or 0.0
            _keep(batch, found, decoded(reply, dict[str, Any]))
        except ApiError as error:
            whole = "results" not in error.details and not isinstance(error, TooLarge)
            if whole and not found.ids:  # such as an unknown function
                raise
            asked = error.retry_after or 0.0
            _keep(batch, found, error.details, error)
        except Unreachable as error:
            if not found.ids:
                raise
            found.errors.update((item.position, error) for item in [*batch, *items[done:]])
            break
        refusals = [found.errors.get(item.position) for item in batch]
        full = next(filter(_may_repeat, refusals), None)
        if full:
            found.errors.update((item.position, full) for item in items[done:])
            break
    return asked


def _keep(batch: Sequence[Item], found: Sent, reply: Mapping[str, Any], refusal: ApiError | None = None) -> None:
    """Keep what a reply says about each event of a batch. ``refusal`` is the error of the whole batch, if any."""
    results = msgspec.convert(reply.get("results", []), list[ItemResult])
    if refusal and len(results) != len(batch):
        found.errors.update((item.position, refusal) for item in batch)
        return
    for item, result in zip(batch, results, strict=True):
        found.errors.pop(item.position, None)
        if result.request_id:
            found.ids[item.position] = result.request_id
        else:
            status = _status(result.error_code)
            kind = error_class(status, result.error_code)
            found.errors[item.position] = kind(status, result.error_code, result.error_msg)


def _status(code: str) -> int:
    """Return the status of an error code: codes such as FSS.0429 contain it."""
    general = re.fullmatch(r"FSS\.0(\d{3})", code)
    return int(general[1]) if general else 400


def _may_repeat(error: ClientError | None) -> bool:
    return isinstance(error, Overloaded | Unavailable)
