"""Body of a batch of asynchronous requests. Events stay the bytes that the client sent.

If all events are valid, the body is decoded in one pass. Otherwise each event is decoded alone, so that an invalid one
does not refuse the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engine.asgi.wire import Headers, check_json_type, check_utf8
from engine.errors import InvalidField, NotJson
from engine.http.api.decoding import invalid_field
from engine.model.limits import IDEMPOTENCY_KEY, LONGEST_DELAY, ORDERING_KEY

T = TypeVar("T")

BATCH_LIMIT = 6 << 20  #: bytes of a body
MOST_EVENTS = 1_000
#: Objects in a body that is decoded in one pass. Each may be an event, of which a longer list would take much memory.
_OBJECTS = 10_000
_SHOWN = 1 << 10  #: bytes of an event whose values errors show
_STEP = 10  #: events that are decoded alone, until other work of the loop has its turn


def _key(longest: int) -> Meta:
    return Meta(pattern=f"^[ -~]{{1,{longest}}}$", description=f"must be 1 to {longest} printable ASCII characters")


class BatchEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Event of a batch, with the options that a single request has in its headers."""

    event: Raw | UnsetType = UNSET  #: any JSON value; absent: ``{}``
    key: Annotated[str, _key(IDEMPOTENCY_KEY)] | None = None  #: idempotency key
    delay: Annotated[float, Meta(ge=0, le=LONGEST_DELAY)] | None = None  #: seconds
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    ordering_key: Annotated[str, _key(ORDERING_KEY)] | None = None


class BatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Batch of events for one function."""

    events: Annotated[list[BatchEvent], Meta(min_length=1, max_length=MOST_EVENTS)]


#: List of up to ``MOST_EVENTS`` values. Unlike that of a list, its decoder stops at the first value too many.
_Values: Any = msgspec.defstruct(
    "_Values",
    [(f"value_{place}", Raw | UnsetType, UNSET) for place in range(MOST_EVENTS)],
    array_like=True,
    forbid_unknown_fields=True,
)


class _RawBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    events: _Values


async def read_batch(headers: Headers, body: bytes) -> Sequence[BatchEvent | InvalidField]:
    """Return the events of a body, with an error in the place of each invalid one.

    Raises NotJson if the body is not JSON, and InvalidField if it is no batch of 1 to ``MOST_EVENTS`` events.
    """
    check_json_type(headers)
    check_utf8(body)
    if body.count(b"{") <= _OBJECTS:
        with suppress(msgspec.ValidationError):
            return _decode(body, BatchBody).events
    try:
        values = msgspec.structs.astuple(_decode(body, _RawBody).events)
    except msgspec.ValidationError as problem:
        if "at most length" in str(problem):
            raise InvalidField("events", f"a list of more than {MOST_EVENTS}", "send the others separately") from None
        raise invalid_field(problem, _shown(body), BatchBody) from None
    found: list[BatchEvent | InvalidField] = []
    for value in values:
        if value is UNSET:
            break
        if len(found) % _STEP == _STEP - 1:
            await asyncio.sleep(0)
        found.append(_read_event(bytes(value)))
    if not found:
        raise InvalidField("events", [], f"must be a list of 1 to {MOST_EVENTS} entries")
    return found


def _read_event(text: bytes) -> BatchEvent | InvalidField:
    try:
        return msgspec.json.decode(text, type=BatchEvent)
    except msgspec.ValidationError as problem:
        return invalid_field(problem, _shown(text), BatchEvent)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as problem:
        raise NotJson(str(problem)) from None
    except RecursionError:
        raise NotJson("nested too deeply") from None


def _shown(text: bytes) -> Any:
    """Return a value for the error about it. A large one is not decoded."""
    text = text.strip()
    with suppress(msgspec.ValidationError):  # a number such as 1e999
        if len(text) <= _SHOWN:
            return msgspec.json.decode(text)
    return "…"
