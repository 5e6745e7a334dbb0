"""Asynchronous invocations of a function: list, show, explain and cancel."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from engine.asgi.streaming import until_disconnected
from engine.errors import BadQuery, InvalidField, InvalidRequest, UnknownInvocation
from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.invocation_filter import record_of, selection_of
from engine.http.api.clients import Number, number_form
from engine.http.api.groups import GroupPlace, GroupReply, LinkReplies
from engine.http.api.paging import MAX_LIMIT, PAGE, bounds, read_place, show_place
from engine.http.api.routing import (
    FUNCTION,
    INVOKE,
    INVOKE_OR_READ,
    ApiFamily,
    BodyCall,
    Call,
    Subject,
    operation,
    read,
)
from engine.http.api.times import exact_time, read_end, read_time, short_time
from engine.logs.lines import plain
from engine.model import Attempt, Code, Function, Record, State
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import LABEL
from engine.model.retry_rules import Decision
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.explanation import MOST_AHEAD, Explainer, Reason
from engine.protocols import FIRST, Count, Found, Records, Selection

DEFAULT_SPAN = 3600.0  #: seconds that a list looks back if the query names no time
MAX_IDS = 10
MAX_WAIT = 60.0  #: seconds
MAX_COUNT = 10_000  #: records that a page with ``after`` counts

_FILTER = (*PAGE, "status", "query_begin_time", "query_end_time", "after", "error_text", "trigger_id", "parent")

ACTIVE = frozenset({State.WAIT, State.RUNNING})


class InvocationItem(Struct, frozen=True, kw_only=True):
    request_id: str
    status: str
    error_code: Number = UNSET  #: its form depends on the client; so does that of ``next_marker``
    error_message: str
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    paused: bool | UnsetType = UNSET  #: True: it waits because its function is paused


class InvocationList(Struct, frozen=True, kw_only=True):
    invocations: list[InvocationItem]
    count: int
    next_marker: Number = UNSET
    next_after: str | UnsetType = UNSET  #: ``after`` of the next page; empty: last page; absent without ``after``


class CancelBody(Struct, frozen=True, kw_only=True):
    request_id: str
    type: str = "force"


class ProgressReply(Struct, frozen=True, kw_only=True):
    """Progress that a handler has reported last."""

    fraction: float  #: 0 to 1
    note: str


class AttemptReply(Struct, frozen=True, kw_only=True):
    attempt: int
    start_time: str
    end_time: str
    error_code: int
    error_message: str
    logs: str  #: path of its log
    instance: str | UnsetType = UNSET  #: id of the instance that ran it; absent if none did
    node: str | UnsetType = UNSET  #: name of its node; absent on the machine of the engine
    decision: Decision | UnsetType = UNSET  #: when to retry, or why not; absent without asynchronous settings
    progress: ProgressReply | UnsetType = UNSET  #: reported last


class WholeRecord(Struct, frozen=True, kw_only=True):
    """Complete data of one invocation (extension of the API).

    Payload and result are text, in the same form in which destinations receive them.
    """

    request_id: str
    function_urn: str
    alias: str
    source: str
    status: str
    paused: bool | UnsetType = UNSET  #: True: it waits because its function is paused
    priority: int
    attempt: int  #: number of the last attempt; 0: none has begun
    attempts: list[AttemptReply]
    accept_time: str
    due_time: str
    start_time: str | None
    end_time: str | None
    error_code: int
    error_message: str  #: of a success: empty, or that its result is not kept, because it has more than 256 KiB
    progress: ProgressReply | UnsetType = UNSET  #: of the running attempt
    payload: str | UnsetType = UNSET  #: absent if the role of the caller may not see it; so are the next two
    result: str | UnsetType = UNSET
    log: str | UnsetType = UNSET
    trigger_id: str | UnsetType = UNSET  #: trigger that made its request; absent if none did
    caused_by: str | UnsetType = UNSET  #: request id of the one whose outcome is its event, or which it repeats
    ordering_key: str | UnsetType = UNSET  #: absent if the invocation has none; so is the next
    held: bool | UnsetType = UNSET  #: it waits for the end of an earlier one with its ordering key, or of its group
    parent: str | UnsetType = UNSET  #: request id of the invocation that queued it
    children: int | UnsetType = UNSET  #: number of invocations that it has queued
    group: GroupPlace | UnsetType = UNSET  #: of which it is a member
    waits_for: GroupReply | UnsetType = UNSET  #: group, or call, whose continuation it is
    damaged: list[str] | UnsetType = UNSET  #: of payload, result and attempts: damaged on disk, so left out


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


class InvocationRecords(ApiFamily):
    subject = Subject("invocation", ("request_id",), ("func_name",))

    def __init__(
        self,
        catalog: Catalog,
        controls: FunctionControls,
        records: Records,
        runs: Dispatcher,
        running: Pool,
        clock: Clock,
        explainer: Explainer,
        links: LinkReplies,
    ) -> None:
        self._links, self._identity = links, links.identity
        self._catalog, self._controls, self._records = catalog, controls, records
        self._runs, self._running, self._clock, self._explainer = runs, running, clock, explainer

    @read(
        "ListAsyncInvocations",
        f"{FUNCTION}/async-invocations",
        InvocationList,
        query=("request_id", *_FILTER),
        roles=INVOKE_OR_READ,
    )
    async def list_all(self, call: Call) -> InvocationList:
        request_id = call.text("request_id")
        return await self._list(call, [request_id] if request_id else [], frozenset(State))

    @read(
        "ListActiveAsyncInvocations",
        f"{FUNCTION}/active-async-invocations",
        InvocationList,
        query=("requests", *_FILTER),
        roles=INVOKE_OR_READ,
    )
    async def list_active(self, call: Call) -> InvocationList:
        ids = [part.strip() for part in call.text("requests").split(",") if part.strip()]
        if len(ids) > MAX_IDS:
            raise BadQuery("requests", call.text("requests"), f"must be at most {MAX_IDS} request ids")
        return await self._list(call, ids, ACTIVE)

    async def _list(self, call: Call, ids: list[str], allowed: frozenset[State]) -> InvocationList:
        selection = self._selection(call, ids, allowed)
        empty = not selection.states or selection.keys == frozenset()
        if call.text("after"):
            return await self._page(call, replace(selection, offset=0), empty=empty)
        records, count = ([], 0) if empty else await self._records.list(selection)
        form = number_form(call.headers)
        paused = self._controls.of(selection.function_id).paused
        items = [_item(record, form, paused=paused) for record in records]
        marker = form(selection.offset + len(items))
        return InvocationList(invocations=items, count=count, next_marker=marker)

    async def _page(self, call: Call, selection: Selection, *, empty: bool) -> InvocationList:
        """Return the page of a list behind the place in the query. Fast at any place, and it may have fewer items."""
        start, page, count = read_place(call.text("after"), "after"), Found(records=(), read=0), Count(rows=0)
        if not empty:
            page = await self._records.search(selection, None if start == FIRST else start, selection.limit)
            count = await self._records.count(selection, MAX_COUNT)
        form, paused = number_form(call.headers), self._controls.of(selection.function_id).paused
        items = [_item(record, form, paused=paused) for record in page.records]
        after = show_place(page.last if page.more else None)
        return InvocationList(invocations=items, count=count.rows, next_marker=form(len(items)), next_after=after)

    def _selection(self, call: Call, ids: list[str], allowed: frozenset[State]) -> Selection:
        """Return the filter for records that the query describes.

        With request ``ids``, a version or alias in the URN is ignored. Only states in ``allowed`` are selected.
        """
        catalog, urn = self._catalog, call.urn
        base = Selection(function_id=catalog.find(urn).function_id) if ids else selection_of(catalog, urn)
        begin, end = call.text("query_begin_time"), call.text("query_end_time")
        offset, limit = bounds(call, "limit", maximum=MAX_LIMIT, default=100)
        since = 0.0 if ids else self._clock.now() - DEFAULT_SPAN
        keys = (self._identity.key_of(request_id) for request_id in ids)
        return replace(
            base,
            trigger_id=_trigger_id(call.text("trigger_id")),
            parent=self._links.parent(call.text("parent")),
            states=read_states(call.text("status")) & allowed,
            keys=frozenset(key for key in keys if key is not None) if ids else None,
            begin=read_time("query_begin_time", begin) if begin else since,
            end=read_end("query_end_time", end) if end else math.inf,
            text=call.text("error_text") if call.text("after") else "",
            offset=offset,
            limit=limit,
        )

    @read(
        "ShowAsyncInvocation",
        f"{FUNCTION}/async-invocations/{{request_id}}",
        WholeRecord,
        query=("wait",),
        own=True,
        roles=INVOKE_OR_READ,
        hidden={"invoke": ("payload", "log"), "read": ("payload", "result")},
    )
    async def show(self, call: Call) -> WholeRecord:
        """Return one invocation (extension of the API).

        With the query ``?wait=<seconds>``, the reply is delayed until the invocation has ended, at most for this time
        and until the client ends its side of the connection.
        """
        wait = _wait(call.text("wait"))
        function = self._catalog.find(call.urn)
        record = await record_of(self._records, self._identity, function, call.part("request_id"))
        if wait and not record.state.final:
            await until_disconnected(call.receive, self._runs.ended(record.key, wait))
            record = await self._records.get(record.key) or record
        paused = record.state is State.WAIT and self._controls.of(record.function_id).paused
        progress = None if record.state.final else self._running.progress(record.key)
        whole = _whole(record, function, call.region, progress, self._identity, paused=paused)
        return replace(whole, **await self._links.of(record.key))

    @read(
        "ExplainAsyncInvocation",
        f"{FUNCTION}/async-invocations/{{request_id}}/explain",
        ExplanationReply,
        own=True,
        roles=INVOKE_OR_READ,
    )
    async def explain(self, call: Call) -> ExplanationReply:
        function = self._catalog.find(call.urn)
        record = await record_of(self._records, self._identity, function, call.part("request_id"))
        explanation = await self._explainer.explain(record)
        return ExplanationReply(
            request_id=record.request_id,
            status=record.state,
            due_time=exact_time(record.due_at),
            ahead=UNSET if explanation.ahead is None else explanation.ahead,
            ahead_is_more=explanation.ahead == MOST_AHEAD,
            reasons=list(explanation.reasons),
        )

    @operation("CancelAsyncInvocation", "POST", f"{FUNCTION}/cancel", CancelBody, roles=INVOKE)
    async def cancel(self, call: BodyCall[CancelBody]) -> None:
        function = self._catalog.find(call.urn)
        body = await call.read()
        if body.type != "force":
            raise InvalidField("type", body.type, "must be force")
        try:
            record = await record_of(self._records, self._identity, function, body.request_id)
        except UnknownInvocation as problem:
            raise InvalidRequest(f"Invalid RequestId: {problem}") from None
        await self._links.cancel(record.key, function.project)
        if record.code != Code.CANCELLED and not await self._runs.cancel(record.key):
            raise InvalidRequest(f"Invalid RequestId: {body.request_id} has already ended")


def read_states(text: str) -> frozenset[State]:
    """Return the states that a comma-separated text names; all states if the text is empty.

    Raises BadQuery if a name is not a state.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return frozenset(map(State, names)) or frozenset(State)
    except ValueError:
        raise BadQuery("status", text, f"must be a list of {', '.join(State)}") from None


def _trigger_id(text: str) -> str:
    if len(text) > LABEL:
        raise BadQuery("trigger_id", text, f"must be at most {LABEL} characters: the id of a trigger")
    return text


def _wait(text: str) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT:
        raise BadQuery("wait", text, f"must be seconds, 0 to {MAX_WAIT:g}")
    return seconds


def _item(record: Record, form: Callable[[int], Number], *, paused: bool) -> InvocationItem:
    return InvocationItem(
        request_id=record.request_id,
        status=record.state,
        error_code="" if form is str and not record.code else form(int(record.code)),  # as Terraform's tests expect
        error_message=record.message,
        start_time=UNSET if record.started_at is None else short_time(record.started_at),
        end_time=UNSET if record.ended_at is None else short_time(record.ended_at),
        paused=(paused and record.state is State.WAIT) or UNSET,
    )


def _whole(
    record: Record,
    function: Function,
    region: str,
    progress: tuple[float, str] | None,
    identity: Identity,
    *,
    paused: bool,
) -> WholeRecord:
    path = f"/v2/{function.project}/fgs/functions/{function.urn(region)}/async-invocations"
    return WholeRecord(
        request_id=record.request_id,
        function_urn=f"{function.urn(region).function}:{record.version}",
        alias=record.alias,
        source=record.source,
        status=record.state,
        paused=paused or UNSET,
        priority=record.priority,
        attempt=0
        if record.attempt == 1 and record.started_at is None and record.state is not State.RUNNING
        else record.attempt,
        attempts=[_attempt(attempt, f"{path}/{record.request_id}/logs") for attempt in record.attempts],
        accept_time=exact_time(record.accepted_at),
        due_time=exact_time(record.due_at),
        start_time=None if record.started_at is None else exact_time(record.started_at),
        end_time=None if record.ended_at is None else exact_time(record.ended_at),
        error_code=int(record.code),
        error_message=record.message,
        progress=UNSET if progress is None else ProgressReply(fraction=progress[0], note=progress[1]),
        payload=record.payload.decode("utf-8", "replace"),
        result=record.result.decode("utf-8", "replace"),
        log=plain(record.log).decode("utf-8", "replace"),
        trigger_id=record.trigger_id or UNSET,
        caused_by=identity.request_id(record.cause) if record.cause else UNSET,
        ordering_key=record.ordering_key or UNSET,
        held=record.held if record.ordering_key else record.held or UNSET,
        damaged=sorted(record.damaged) or UNSET,
    )


def _attempt(attempt: Attempt, logs: str) -> AttemptReply:
    return AttemptReply(
        attempt=attempt.attempt,
        start_time=exact_time(attempt.started_at),
        end_time=exact_time(attempt.ended_at),
        error_code=int(attempt.code),
        error_message=attempt.message,
        logs=f"{logs}?attempt={attempt.attempt}",
        instance=attempt.instance or UNSET,
        node=attempt.node or UNSET,
        decision=UNSET if attempt.decision is None else attempt.decision,
        progress=UNSET if attempt.progress is None else ProgressReply(fraction=attempt.progress, note=attempt.note),
    )
