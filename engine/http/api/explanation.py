"""Explanation of the state of an invocation: its place in order, and why it waits (extension of the API)."""

from __future__ import annotations

from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import record_of
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import exact_time
from engine.model import Record
from engine.model.identity import Identity
from engine.pipeline.explanation import MOST_AHEAD, Explanation, Reason
from engine.protocols import Records


class Explaining(Protocol):
    async def explain(self, record: Record) -> Explanation: ...


class ExplanationReply(Struct, frozen=True, kw_only=True):
    """State of an invocation, and the reasons for which it waits, the most important first.

    ``reason`` is one of paused, delay, retry, held, engine, clock, limit, rate, alone, slots, memory and order; of a
    running invocation starting or running. Without reasons, a waiting invocation starts next.
    """

    request_id: str
    status: str
    due_time: str
    ahead: int | UnsetType = UNSET  #: ready invocations of the function that start before it; absent: it is not ready
    ahead_is_more: bool = False  #: True: there are at least so many
    reasons: list[Reason]


class ExplanationApi:
    def __init__(self, catalog: Catalog, records: Records, identity: Identity, explaining: Explaining) -> None:
        self._catalog, self._records, self._identity, self._explaining = catalog, records, identity, explaining

    def resources(self) -> list[Resource]:
        path = f"{BASE}/functions/{{function_urn}}/async-invocations/{{request_id}}/explain"
        return [Resource(path=path, methods={"GET": self.show})]

    async def show(self, call: Call) -> Reply:
        function = self._catalog.find(call.urn)
        record = await record_of(self._records, self._identity, function, call.part("request_id"))
        found = await self._explaining.explain(record)
        return json_reply(
            ExplanationReply(
                request_id=record.request_id,
                status=record.state,
                due_time=exact_time(record.due_at),
                ahead=UNSET if found.ahead is None else found.ahead,
                ahead_is_more=found.ahead == MOST_AHEAD,
                reasons=list(found.reasons),
            )
        )
