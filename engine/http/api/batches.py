"""Acceptance of a batch of asynchronous requests for one function (extension of the API)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.asgi.error_replies import retry_after
from engine.asgi.wire import Headers, Reply
from engine.errors import FunctiondError, FunctionDisabled, InvalidField, Overloaded, PayloadTooLarge
from engine.http.api.batch_body import BatchEvent
from engine.http.api.errors import error_reply, status_and_code
from engine.model import Request
from engine.model.urn import FunctionUrn

#: Headers of a single request that a batch has in its events instead, with the names that they have there.
EVENT_OPTIONS = {
    b"idempotency-key": "key",
    b"x-functiond-delay": "delay",
    b"x-functiond-priority": "priority",
    b"x-functiond-ordering-key": "ordering_key",
}


class BatchIntake(Protocol):
    async def accept_each(self, requests: Sequence[Request]) -> Sequence[str | FunctiondError]:
        """Accept requests for one function in one commit. Return a request id or an error for each."""
        ...


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
    intake: BatchIntake,
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
    return _reply(results)


def _reply(results: Sequence[str | FunctiondError]) -> Reply:
    shown = [_result(one) for one in results]
    errors = [one for one in results if not isinstance(one, str)]
    if len(errors) < len(results):
        reply = BatchReply(results=shown, accepted=len(results) - len(errors), refused=len(errors))
        late = next((one for one in errors if isinstance(one, Overloaded)), None)
        return Reply(status=202, body=msgspec.json.encode(reply), headers=retry_after(late) if late else ())
    # The whole batch has an error after which the client may retry, if an event has one.
    place = next((place for place, one in enumerate(errors) if isinstance(one, Overloaded | FunctionDisabled)), 0)
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
