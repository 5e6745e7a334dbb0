"""Actions on invocations that a filter selects or a request lists: cancel, redrive, run again (extension of the API).

A request that selects by filter is one step. Its reply has ``next_marker``, from which the next request goes on.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField, PayloadTooLarge
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import selection_of
from engine.http.api.invocations import read_idempotency_key
from engine.http.api.paging import read_place, show_place
from engine.http.api.records import ACTIVE, read_states
from engine.http.api.routing import FUNCTION, SHORT_LIMIT, ApiFamily, BodyCall, Subject, operation
from engine.http.api.times import read_end, read_time
from engine.model import State
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import LONGEST_DELAY, Label
from engine.model.urn import FunctionUrn
from engine.pipeline.cancellation import Cancellation
from engine.pipeline.redrive import FAILED, Chosen, Edit, Redrive

STEP = 500  #: invocations that one step covers
BATCH_SIZE = 100  #: invocations sent again by one request that lists them, or sets no limit
#: Seconds that a redrive of failed invocations looks back by default. A repeat within this time returns the same ids.
SPAN = 86_400.0
RequestIds = Annotated[list[str], Meta(max_length=BATCH_SIZE)]
Limit = Annotated[int, Meta(ge=1, le=STEP)]
Codes = Annotated[list[int], Meta(max_length=50)]
Priority = Annotated[int, Meta(ge=0, le=9)]
Delay = Annotated[float, Meta(ge=0, le=LONGEST_DELAY)]


class CancelInvocationsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filter for the invocations to cancel. Without any field, all waiting ones of the function match."""

    status: str = State.WAIT.value  #: ``WAIT``, ``RUNNING``, or both with a comma
    source: Label = ""  #: trigger type, or ``API``; empty: any
    trigger_id: Label = ""  #: empty: any, or none
    error_codes: Codes = []  #: codes of their last attempts; empty: any
    query_begin_time: str = ""  #: earliest acceptance
    query_end_time: str = ""  #: latest acceptance
    limit: Limit = STEP
    marker: str = ""  #: ``next_marker`` of the previous step


class CancelledInvocations(Struct, frozen=True, kw_only=True):
    """Result of one step. A step may end none of them and still have a successor."""

    cancelled: list[str]  #: request ids
    next_marker: str  #: ``marker`` of the next step; empty: this was the last one


class RedriveInvocationsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Invocations to redrive.

    ``request_ids`` lists them. If ``failed`` is true instead, the next ``limit`` failed and discarded invocations are
    redriven, and further requests continue from ``marker``. The other fields are a filter for them. Cancelled
    invocations must be listed by id, or by their code 4208.
    """

    request_ids: RequestIds = []
    failed: bool = False
    limit: Limit = BATCH_SIZE  #: invocations of a step
    marker: str = ""  #: ``next_marker`` of the previous step; empty: first step
    query_begin_time: str = ""  #: earliest acceptance, as in lists; empty: a day ago
    query_end_time: str = ""  #: latest acceptance; empty: no limit
    status: str = ""  #: ``FAIL`` or ``DISCARD``; empty: both
    error_codes: Codes = []  #: empty: any except 4208
    source: Label = ""  #: trigger type, or ``API``; empty: any
    trigger_id: Label = ""  #: empty: any, or none
    counted: bool = True  #: False: leave out ``count``, which takes long if many are left


class RedrivenInvocation(Struct, frozen=True, kw_only=True):
    request_id: str
    new_request_id: str
    repeated: bool | UnsetType = UNSET  #: True: an earlier redrive has sent the event, and this one has sent nothing


class RefusedInvocation(Struct, frozen=True, kw_only=True):
    request_id: str
    error_message: str


class RedrivenInvocations(Struct, frozen=True, kw_only=True):
    """Result of a redrive of invocations.

    If the request listed ids, only ``redriven`` is set, in the order of the ids. If the request set ``failed``, all
    fields are set, newest invocation first. Fewer than ``limit`` invocations are handled if the engine temporarily
    accepts no more.
    """

    redriven: list[RedrivenInvocation]
    refused: list[RefusedInvocation] | UnsetType = UNSET  #: invocations that can never be redriven
    count: int | UnsetType = UNSET  #: number of invocations that were left before this step
    next_marker: str | UnsetType = UNSET  #: ``marker`` of the next step; empty: no invocations are left


class RunAgainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of the new invocation. Without any, the event is invoked again as it was."""

    event: msgspec.Raw | UnsetType = UNSET  #: any JSON value, in place of the earlier event
    priority: Priority | UnsetType = UNSET
    delay: Delay = 0.0  #: seconds


class RunAgainReply(Struct, frozen=True, kw_only=True):
    request_id: str  #: of the new invocation


class InvocationActionsApi(ApiFamily):
    """Family of the actions. ``limit`` is the largest event in bytes."""

    subject = Subject("invocation", ("function_urn",), ("func_name",))

    def __init__(
        self,
        catalog: Catalog,
        redrive: Redrive,
        cancellation: Cancellation,
        identity: Identity,
        clock: Clock,
        limit: int,
    ) -> None:
        self._catalog, self._redrive, self._cancellation = catalog, redrive, cancellation
        self._identity, self._clock, self._limit = identity, clock, limit

    @operation(
        "RedriveAsyncInvocations",
        "POST",
        f"{FUNCTION}/async-invocations/redrive",
        RedriveInvocationsBody,
        RedrivenInvocations,
        own=True,
    )
    async def redrive_invocations(self, call: BodyCall[RedriveInvocationsBody]) -> RedrivenInvocations:
        urn = call.urn
        body = await call.read()
        if body.failed is bool(body.request_ids):
            raise InvalidField("request_ids", body.request_ids, "list some ids, or set failed to true")
        if body.failed:
            return await self._step(urn, body)
        mark = self._identity.next_key(self._clock.now())  # larger than all keys before
        done = [
            self._redriven(request_id, await self._redrive.invoke(urn, request_id), mark)
            for request_id in body.request_ids
        ]
        return RedrivenInvocations(redriven=done)

    async def _step(self, urn: FunctionUrn, body: RedriveInvocationsBody) -> RedrivenInvocations:
        begin, end = body.query_begin_time, body.query_end_time
        below = self._identity.key_of(body.marker) if body.marker else None
        if body.marker and below is None:
            raise InvalidField("marker", body.marker, "must be the next_marker of the previous step, or empty")
        states = read_states(body.status) & FAILED
        if not states:
            raise InvalidField("status", body.status, "must be FAIL or DISCARD")
        chosen = Chosen(
            states=states,
            codes=frozenset(body.error_codes),
            source=body.source,
            trigger_id=body.trigger_id,
            begin=read_time("query_begin_time", begin) if begin else self._clock.now() - SPAN,
            end=read_end("query_end_time", end) if end else math.inf,
        )
        mark = self._identity.next_key(self._clock.now())
        step = await self._redrive.invoke_failed(urn, chosen, below=below, limit=body.limit, counted=body.counted)
        return RedrivenInvocations(
            redriven=[self._redriven(old, new, mark) for old, new in step.sent],
            refused=[RefusedInvocation(request_id=request_id, error_message=why) for request_id, why in step.refused],
            count=UNSET if step.count is None else step.count,
            next_marker="" if step.below is None else self._identity.request_id(step.below),
        )

    def _redriven(self, old: str, new: str, mark: int) -> RedrivenInvocation:
        """Describe a redriven invocation. An id whose key is below ``mark`` was made by an earlier redrive."""
        repeated = (self._identity.key_of(new) or mark) < mark
        return RedrivenInvocation(request_id=old, new_request_id=new, repeated=repeated or UNSET)

    @operation(
        "CancelAsyncInvocations",
        "POST",
        f"{FUNCTION}/async-invocations/cancel",
        CancelInvocationsBody,
        CancelledInvocations,
        optional=True,
        own=True,
    )
    async def cancel(self, call: BodyCall[CancelInvocationsBody]) -> CancelledInvocations:
        scope = selection_of(self._catalog, call.urn)
        body = await call.read()
        states, begin, end = read_states(body.status), body.query_begin_time, body.query_end_time
        if not states <= ACTIVE:
            raise InvalidField("status", body.status, "must be WAIT, RUNNING or WAIT,RUNNING: others have ended")
        scope = replace(
            scope,
            source=body.source,
            trigger_id=body.trigger_id,
            codes=frozenset(body.error_codes),
            begin=read_time("query_begin_time", begin) if begin else 0.0,
            end=read_end("query_end_time", end) if end else math.inf,
        )
        step = await self._cancellation.step(scope, states, read_place(body.marker), body.limit)
        ids = [self._identity.request_id(key) for key in step.keys]
        return CancelledInvocations(cancelled=ids, next_marker=show_place(step.reached))

    @operation(
        "RunAsyncInvocationAgain",
        "POST",
        f"{FUNCTION}/async-invocations/{{request_id}}/run-again",
        RunAgainBody,
        RunAgainReply,
        optional=True,
        status=202,
        headers=("Idempotency-Key",),
        own=True,
    )
    async def run_again(self, call: BodyCall[RunAgainBody]) -> Reply:
        urn = call.urn
        self._catalog.find(urn)
        key = read_idempotency_key(call.headers.get(b"idempotency-key"))
        body = await call.read(self._limit + SHORT_LIMIT)
        event = None if body.event is UNSET else bytes(body.event)
        if event is not None and len(event) > self._limit:
            raise PayloadTooLarge(self._limit)
        edit = Edit(
            payload=event,
            priority=None if body.priority is UNSET else body.priority,
            delay=body.delay,
            idempotency_key=key,
        )
        request_id = await self._redrive.run_again(urn, call.part("request_id"), edit)
        reply = json_reply(RunAgainReply(request_id=request_id))
        return msgspec.structs.replace(reply, status=202, headers=((b"X-Cff-Request-Id", request_id.encode()),))
