"""Source of CTS: traces of operations on this engine's own API, and traces that clients send.

Traces of this engine wait in memory until they are accepted, also while the function's backlog is full. Waiting traces
are lost if the engine is killed. If ``WAITING`` traces wait for a trigger, further ones are dropped, with an error in
the log. Traces that clients send to ``POST /triggers/cts`` are on disk before the request is answered. Senders need
credentials of the engine's API, if the engine has any. A trace with the id of an earlier one calls no function again
(by default, within one day).

Invocations produce no traces, so an invocation for a trace cannot cause another one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import anyio
import structlog
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import (
    Event,
    EventSink,
    NotFound,
    PluginContext,
    PushRequest,
    Reply,
    Trace,
    TriggerContext,
)
from plugins._shared.push import accept_each, accepted_reply, push_operation
from plugins.cts.options import CtsOptions
from plugins.cts.traces import Wanted, own, payload, read_pushed

WAITING = 1000  #: waiting own traces of one trigger
BATCH_SIZE = 100  #: own traces in one transaction
PUSH = push_operation("CtsPushTraces", "/triggers/cts")

log = structlog.get_logger("functiond.cts")


class CtsTrigger:
    """Source that accepts the traces of this engine that wait for the trigger.

    Traces can wait from the moment when the trigger is stored, even before its source runs.
    """

    def __init__(self, options: CtsOptions) -> None: ...

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        service: CtsService = context.plugin.service
        task_status.started()
        try:
            await service.inboxes[context.trigger_id].empty_into(context)
        finally:
            if context.deleted:
                service.inboxes.pop(context.trigger_id, None)


class _Inbox:
    """Traces of this engine that wait for one trigger.

    If two runs of the trigger's source overlap, the later one waits for the end of the earlier.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._lock = anyio.Lock()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._filled.set()

    async def empty_into(self, context: TriggerContext) -> None:
        """Accept waiting traces as events until cancelled.

        Traces are removed after they are accepted. If they are accepted again, idempotency keys prevent a second call.
        """
        async with self._lock:
            while True:
                await self._filled.wait()
                events = list(islice(self._events, BATCH_SIZE))
                await context.accept_batch(events)
                for _ in events:
                    self._events.popleft()
                if not self._events:
                    self._filled.clear()


class _Subscriber(Struct, frozen=True, kw_only=True, eq=False):
    wanted: Wanted
    sink: EventSink
    inbox: _Inbox

    def event(self, trace_id: str, content: bytes) -> Event:
        return Event(payload=content, idempotency_key=f"cts:{self.sink.trigger_id}:{trace_id}")

    def collect(self, trace: Trace) -> None:
        """Let a trace of this engine wait for the trigger, if its operation matches the trigger's options."""
        if trace.project != self.sink.project or not self.wanted.has_own(trace):
            return
        if len(self.inbox) >= WAITING:
            log.error("trace dropped: too many wait", trigger=self.sink.trigger_id, trace=trace.trace_id)
        else:
            self.inbox.put(self.event(trace.trace_id, payload(own(trace))))


class CtsService:
    """Part of CTS that runs once for all its triggers: the endpoint for clients' traces, and the triggers."""

    def __init__(self, settings: None) -> None:
        self._subscribers: list[_Subscriber] = []
        self.inboxes = defaultdict[str, _Inbox](_Inbox)  #: keyed by trigger

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.routes.mount("", self._answer, signed=True, operations=[PUSH]):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def subscribed(self, options: CtsOptions, sink: EventSink) -> Iterator[None]:
        subscriber = _Subscriber(wanted=Wanted(options.operations), sink=sink, inbox=self.inboxes[sink.trigger_id])
        self._subscribers.append(subscriber)
        try:
            with sink.plugin.audit.subscribed(subscriber.collect):
                yield
        finally:
            self._subscribers.remove(subscriber)

    async def _answer(self, request: PushRequest) -> Reply:
        if request.method != "POST" or request.path not in ("", "/"):
            return Reply(status=405 if request.method != "POST" else 404, headers=((b"Allow", b"POST"),))
        listening = [subscriber for subscriber in self._subscribers if request.project in ("", subscriber.sink.project)]
        if not listening:
            raise NotFound("no CTS trigger exists: create one")
        accepted = await accept_each(
            (subscriber.sink, subscriber.event(trace["trace_id"], payload(trace)))
            if subscriber.wanted.has_pushed(trace)
            else None
            for trace in read_pushed(request.body)
            for subscriber in listening
        )
        return accepted_reply(accepted)
