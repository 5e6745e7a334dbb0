"""Batch of asynchronous requests for one function: its body, its acceptance, and the reply (extension of the API).

Events stay the bytes that the client sent. If all events are valid, the body is decoded in one pass. Otherwise each
event is decoded alone, so that an invalid one does not refuse the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engine.asgi.error_replies import retry_after
from engine.asgi.wire import Headers, Reply, check_json_type, check_utf8
from engine.errors import FunctiondError, FunctionDisabled, InvalidField, NotJson, Overloaded, PayloadTooLarge
from engine.http.api.decoding import invalid_field
from engine.http.api.errors import error_reply, status_and_code
from engine.model import Request
from engine.model.limits import IDEMPOTENCY_KEY, LONGEST_DELAY, ORDERING_KEY
from engine.model.urn import FunctionUrn
from engine.pipeline.intake import Intake

#: Headers of a single request that a batch has in its events instead, with the names that they have there.
EVENT_OPTIONS = {
    b"idempotency-key": "key",
    b"x-functiond-delay": "delay",
    b"x-functiond-priority": "priority",
    b"x-functiond-ordering-key": "ordering_key",
}
T = TypeVar("T")

BATCH_LIMIT = 6 << 20  #: bytes of a body
MOST_EVENTS = 1_000
#: Objects in a body that is decoded in one pass. Each may be an event, of which a longer list would take much memory.
_OBJECTS = 10_000
_SHOWN = 1 << 10  #: bytes of an event whose values errors show
_STEP = 10  #: events that are decoded alone, until other work of the loop has its turn


class BatchResult(Struct, frozen=True, kw_only=True):
    """Request id of an accepted event, or the error of a refused one."""

    request_id: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    error_msg: str | UnsetType = UNSET


class BatchReply(Struct, frozen=True, kw_only=True):
    results: list[BatchResult]  #: in the order of the events
    accepted: int
    refused: int


class BatchRefused(BatchReply, frozen=True, kw_only=True):
    """Reply if no event was accepted."""

    error_code: str
    error_msg: str


def check_options(headers: Headers) -> None:
    """Raise InvalidField if the request has a header that is an option of a single event."""
    for name in EVENT_OPTIONS.keys() & headers.keys():
        title = name.decode().title()
        raise InvalidField(title, headers[name].decode("latin-1"), f"set {EVENT_OPTIONS[name]} of each event instead")


async def accept_events(
    intake: Intake,
    events: Sequence[BatchEvent | InvalidField],
    urn: FunctionUrn,
    headers: Headers,
    *,
    memory: int,
    limit: int,
) -> Reply:
    """Accept the valid ones of ``events``, of up to ``limit`` bytes each, and return the reply to the batch."""
    results: list[str | FunctiondError] = []
    places: list[int] = []
    requests: list[Request] = []
    for event in events:
        if isinstance(event, InvalidField):
            results.append(event)
            continue
        payload = b"{}" if event.event is UNSET else bytes(event.event)
        if len(payload) > limit:
            results.append(PayloadTooLarge(limit))
            continue
        places.append(len(results))
        results.append("")
        requests.append(
            Request(
                function=urn,
                payload=payload,
                priority=event.priority or 0,
                delay=event.delay or 0.0,
                memory=memory,
                idempotency_key=event.key or "",
                headers=headers,
                ordering_key=event.ordering_key or "",
            )
        )
    if requests:
        for place, result in zip(places, await intake.accept_each(requests), strict=True):
            results[place] = result
    return reply_to(results)


def reply_to(results: Sequence[str | FunctiondError]) -> Reply:
    """Return the reply to a batch, with the request id or error of each event."""
    shown = [_result(result) for result in results]
    errors = [result for result in results if not isinstance(result, str)]
    if len(errors) < len(results):
        reply = BatchReply(results=shown, accepted=len(results) - len(errors), refused=len(errors))
        late = next((error for error in errors if isinstance(error, Overloaded)), None)
        return Reply(status=202, body=msgspec.json.encode(reply), headers=retry_after(late) if late else ())
    # The whole batch has an error after which the client may retry, if an event has one.
    place = next((place for place, error in enumerate(errors) if isinstance(error, Overloaded | FunctionDisabled)), 0)
    refused = BatchRefused(
        results=shown,
        accepted=0,
        refused=len(errors),
        error_code=status_and_code(errors[place])[1],
        error_msg=f"no event is accepted; events[{place}]: {errors[place]}",
    )
    return msgspec.structs.replace(error_reply(errors[place]), body=msgspec.json.encode(refused))


def _result(result: str | FunctiondError) -> BatchResult:
    if isinstance(result, str):
        return BatchResult(request_id=result)
    return BatchResult(error_code=status_and_code(result)[1], error_msg=str(result))


def _key(longest: int) -> Meta:
    return Meta(pattern=f"^[ -~]{{1,{longest}}}$", description=f"must be 1 to {longest} printable ASCII characters")


IdempotencyKey = Annotated[str, _key(IDEMPOTENCY_KEY)]
OrderingKey = Annotated[str, _key(ORDERING_KEY)]


class BatchEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Event of a batch, with the options that a single request has in its headers."""

    event: Raw | UnsetType = UNSET  #: any JSON value; absent: ``{}``
    key: IdempotencyKey | None = None  #: idempotency key
    delay: Annotated[float, Meta(ge=0, le=LONGEST_DELAY)] | None = None  #: seconds
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    ordering_key: OrderingKey | None = None


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
    events: list[BatchEvent | InvalidField] = []
    for value in values:
        if value is UNSET:
            break
        if len(events) % _STEP == _STEP - 1:
            await asyncio.sleep(0)
        events.append(_read_event(bytes(value)))
    if not events:
        raise InvalidField("events", [], f"must be a list of 1 to {MOST_EVENTS} entries")
    return events


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
