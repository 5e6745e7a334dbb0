"""Cancellation of many invocations of a function by filter, one step a request (extension of the API)."""

from __future__ import annotations

import math
from typing import Annotated, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import selection_of
from engine.http.api.places import read_place, show_place
from engine.http.api.records import ACTIVE, read_states
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import read_end, read_time
from engine.model import State
from engine.model.identity import Identity
from engine.model.limits import Label
from engine.pipeline.bulk_cancellation import CancelStep
from engine.protocols import Place, Selection

STEP = 500  #: invocations that one request ends
Limit = Annotated[int, Meta(ge=1, le=STEP)]
Codes = Annotated[list[int], Meta(max_length=50)]


class Cancelling(Protocol):
    async def step(self, selection: Selection, states: frozenset[State], after: Place, limit: int) -> CancelStep: ...


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


class BulkCancelApi:
    def __init__(self, catalog: Catalog, cancelling: Cancelling, identity: Identity) -> None:
        self._catalog, self._cancelling, self._identity = catalog, cancelling, identity

    def resources(self) -> list[Resource]:
        path = f"{BASE}/functions/{{function_urn}}/async-invocations/cancel"
        return [Resource(path=path, methods={"POST": self.cancel})]

    async def cancel(self, call: Call) -> Reply:
        scope = selection_of(self._catalog, call.urn)
        body = await call.read(CancelInvocationsBody, empty=CancelInvocationsBody())
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
        step = await self._cancelling.step(scope, states, read_place(body.marker), body.limit)
        ids = [self._identity.request_id(key) for key in step.keys]
        return json_reply(CancelledInvocations(cancelled=ids, next_marker=show_place(step.reached)))
