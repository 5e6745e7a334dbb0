"""Spans of invocations, from which a tracing system shows where the time of a request went.

    sender's span ──▶ wait (in the queue) ──▶ start (of a new instance)
                          ├──────────────────▶ run  ──▶ spans of the function's code
                          │                     └─────▶ deliver ──▶ spans of the receiver, or of the next function
                          └──▶ wait, run ... of each retry

Ids of spans are derived from the request id, the attempt and the delivery. Only the trace context of the request is
stored, with its invocation. After a restart, and in an engine that takes over, later spans thus have the right parents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from engine.model import Function, Invocation, Outcome, PendingDelivery, Record
from engine.model.trace import TraceContext, parse_trace, span_id_of, trace_id_of

LONGEST_PROBLEM = 1000  #: characters of an error text
_HTTP = frozenset({"API", "APIG", "APIC", "DEDICATEDGATEWAY", "WEBHOOK"})
_STORES = frozenset({"OBS", "DDS", "GAUSSMONGO"})

Attributes = dict[str, str | int | bool]


class Span(Struct, frozen=True, kw_only=True):
    """Ended span. Times are in seconds since the epoch."""

    name: str
    kind: Literal["internal", "producer", "consumer"]
    context: TraceContext  #: trace, and id of the span itself
    parent_id: str = ""  #: empty: the span is the root of its trace
    began_at: float
    ended_at: float
    attributes: Attributes
    problem: str = ""  #: error of the work; empty: it succeeded
    link: TraceContext | None = None  #: first span of the invocation that this one repeats


class SpanStatistics(Struct, frozen=True, kw_only=True):
    exported: int
    failed: int  #: refused by the receiver, or not sent
    dropped: int  #: not kept, because too many waited


class Tracer:
    """Maker of spans. ``sampling`` is the share of the traces that begin here and are exported.

    ``export`` takes each span, and never waits. ``statistics`` returns the numbers of all of them. A trace
    that began elsewhere is exported if its trace context says so.
    """

    def __init__(
        self, export: Callable[[Span], None], statistics: Callable[[], SpanStatistics], sampling: float
    ) -> None:
        self._export, self.statistics, self._sampling = export, statistics, sampling

    def trace_of_attempt(self, invocation: Invocation) -> str:
        """Return the trace context that the function gets: its spans are children of the span ``run``."""
        trace = self._trace(invocation.request_id, invocation.trace)
        return str(_child(trace, span_id_of(invocation.request_id, "run", invocation.attempt)))

    def trace_of_delivery(self, pending: PendingDelivery, record: Record) -> str:
        """Return the trace context that a destination gets."""
        return str(_child(self._trace(record.request_id, record.trace), _delivery_id(pending, record)))

    def note_attempt(self, function: Function, invocation: Invocation, outcome: Outcome, repeated: str = "") -> None:
        """Export the spans of an attempt that has ended: its wait, the start of an instance, and its run.

        ``repeated`` is the request id of an earlier invocation that this one repeats, or empty. Both have the same
        stored trace context.
        """
        request_id, attempt = invocation.request_id, invocation.attempt
        trace = self._trace(request_id, invocation.trace)
        if not trace.sampled:
            return
        attributes = _attributes(function, invocation)
        link = _child(self._trace(repeated, invocation.trace), span_id_of(repeated, "wait", 1)) if repeated else None
        first, run = span_id_of(request_id, "wait", 1), span_id_of(request_id, "run", attempt)
        self._export(
            Span(
                name=f"wait {function.name}",
                kind="producer",
                context=_child(trace, span_id_of(request_id, "wait", attempt)),
                parent_id=trace.span_id if attempt == 1 else first,
                began_at=min(invocation.due_at, outcome.started_at),
                ended_at=outcome.started_at,
                attributes={**attributes, "messaging.operation.type": "create"},
                link=link,
            )
        )
        if outcome.initialised:
            self._export(
                Span(
                    name=f"start {function.name}",
                    kind="internal",
                    context=_child(trace, span_id_of(request_id, "start", attempt)),
                    parent_id=run,
                    began_at=outcome.started_at,
                    ended_at=outcome.started_at + outcome.initialised,
                    attributes=attributes,
                )
            )
        self._export(
            Span(
                name=f"run {function.name}",
                kind="consumer",
                context=_child(trace, run),
                parent_id=first,
                began_at=outcome.started_at,
                ended_at=outcome.ended_at,
                attributes=_run_attributes(attributes, outcome),
                problem=outcome.message[:LONGEST_PROBLEM] or (f"code {outcome.code}" if outcome.code else ""),
            )
        )

    def note_delivery(
        self, pending: PendingDelivery, record: Record, began_at: float, ended_at: float, problem: str
    ) -> None:
        """Export the span of a try of a delivery that has ended."""
        trace = self._trace(record.request_id, record.trace)
        if not trace.sampled:
            return
        kind = pending.destination.destination
        attributes: Attributes = {
            "messaging.system": "functiond",
            "messaging.operation.type": "send",
            "messaging.destination.name": kind,
            "messaging.message.id": record.request_id,
            "functiond.delivery.id": pending.delivery_id,
            "functiond.delivery.try": pending.tries + 1,
        }
        self._export(
            Span(
                name=f"deliver {kind}",
                kind="producer",
                context=_child(trace, _delivery_id(pending, record)),
                parent_id=span_id_of(record.request_id, "run", record.attempt),
                began_at=began_at,
                ended_at=ended_at,
                attributes=attributes,
                problem=problem[:LONGEST_PROBLEM],
            )
        )

    def _trace(self, request_id: str, value: str) -> TraceContext:
        """Return the stored trace context of a request, or that of the trace which its invocation begins."""
        context = parse_trace(value) if value else None
        if context is not None:
            return context
        trace_id = trace_id_of(request_id)
        return TraceContext(trace_id, "", int(trace_id[-8:], 16) < self._sampling * (1 << 32))


def _child(trace: TraceContext, span_id: str) -> TraceContext:
    return TraceContext(trace.trace_id, span_id, trace.sampled)


def _delivery_id(pending: PendingDelivery, record: Record) -> str:
    return span_id_of(record.request_id, "deliver", pending.delivery_id, pending.since, pending.tries)


def _attributes(function: Function, invocation: Invocation) -> Attributes:
    source = invocation.source
    trigger = "http" if source in _HTTP else "timer" if source == "TIMER" else "datasource" if source in _STORES else ""
    return {
        "faas.name": function.name,
        "faas.version": function.version,
        "faas.invocation_id": invocation.request_id,
        "faas.trigger": trigger or "pubsub",
        "messaging.system": "functiond",
        "messaging.destination.name": function.name,
        "messaging.message.id": invocation.request_id,
        "functiond.project": function.project,
        "functiond.package": function.package,
        "functiond.source": source,
        "functiond.mode": str(invocation.mode),
        "functiond.attempt": invocation.attempt,
    }


def _run_attributes(attributes: Attributes, outcome: Outcome) -> Attributes:
    own: Attributes = {
        **attributes,
        "messaging.operation.type": "process",
        "faas.coldstart": outcome.initialised > 0,
        "functiond.code": int(outcome.code),
    }
    if outcome.code:
        own["error.type"] = str(int(outcome.code))
    return own
