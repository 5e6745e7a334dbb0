"""Export of spans over OTLP/HTTP by the libraries of OpenTelemetry, which the extra ``otel`` installs.

A thread sends spans in batches. The thread sleeps while there are none. The engine never waits for the receiver: while
too many spans wait, further ones are dropped and counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from queue import SimpleQueue
from typing import Any

import structlog

from engine.errors import SettingsError
from engine.metrics.spans import Span, SpanStatistics

QUEUE = 8192  #: spans that may wait
BATCH = 512  #: spans of one request to the receiver
DELAY = 1.0  #: seconds for which a batch is gathered
LAST = 3.0  #: seconds for the last spans when the engine stops
_NANOSECONDS = 1_000_000_000

log = structlog.get_logger("functiond")


class OtlpExporter:
    """Exporter of spans to ``endpoint``, the complete URL of an OTLP/HTTP receiver.

    Headers, certificates and time-outs are those of OpenTelemetry's environment variables, such as
    ``OTEL_EXPORTER_OTLP_HEADERS``. So is the name of the service if ``service_name`` is empty. Raises SettingsError if
    the extra is not installed.
    """

    def __init__(self, endpoint: str, service_name: str, version: str) -> None:
        sdk, resources, trace, exporter = _libraries()
        name = service_name or os.environ.get("OTEL_SERVICE_NAME") or "functiond"
        self._sdk, self._trace = sdk, trace
        self._resource = resources.Resource.create({"service.name": name, "service.version": version})
        self._exporter = exporter.OTLPSpanExporter(endpoint=endpoint)
        self._success = import_module("opentelemetry.sdk.trace.export").SpanExportResult.SUCCESS
        self._queue: SimpleQueue[Span | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._exported = self._failed = self._dropped = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send spans until the block ends, then the last ones within ``LAST`` seconds."""
        thread = threading.Thread(target=self._run, name="spans", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._queue.put(None)
            thread.join(LAST)
            self._exporter.shutdown()  # ends a try that waits for an absent receiver

    def add(self, span: Span) -> None:
        if self._queue.qsize() >= QUEUE:
            self._dropped += 1
        else:
            self._queue.put(span)

    def statistics(self) -> SpanStatistics:
        return SpanStatistics(exported=self._exported, failed=self._failed, dropped=self._dropped)

    # --- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            if self._queue.qsize() < BATCH:
                self._stopping.wait(DELAY)
            batch = [first, *(self._queue.get() for _ in range(min(BATCH - 1, self._queue.qsize())))]
            self._send([span for span in batch if span is not None])
            if batch[-1] is None:
                return

    def _send(self, batch: Sequence[Span]) -> None:
        try:
            sent = self._exporter.export([self._converted(span) for span in batch]) is self._success
        except Exception as error:  # earlier versions of the library raise it for a receiver that is too slow
            sent = False
            log.warning("spans not exported", spans=len(batch), problem=repr(error)[:300])
        if sent:
            self._exported += len(batch)
        else:
            self._failed += len(batch)

    def _converted(self, span: Span) -> Any:
        trace, link = self._trace, span.link
        status = trace.Status(trace.StatusCode.ERROR, span.problem) if span.problem else trace.Status()
        return self._sdk.ReadableSpan(
            name=span.name,
            context=self._context(span.context.trace_id, span.context.span_id),
            parent=self._context(span.context.trace_id, span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            links=() if link is None else [trace.Link(self._context(link.trace_id, link.span_id))],
            kind=trace.SpanKind[span.kind.upper()],
            status=status,
            start_time=int(span.began_at * _NANOSECONDS),
            end_time=int(max(span.began_at, span.ended_at) * _NANOSECONDS),
        )

    def _context(self, trace_id: str, span_id: str) -> Any:
        flags = self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED)
        return self._trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)


def _libraries() -> tuple[Any, Any, Any, Any]:
    names = (
        "opentelemetry.sdk.trace",
        "opentelemetry.sdk.resources",
        "opentelemetry.trace",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    )
    try:
        sdk, resources, trace, exporter = (import_module(name) for name in names)
    except ImportError as error:
        raise SettingsError(
            f"telemetry.endpoint needs the extra otel ({error}): pip install 'functiond[otel]', or remove the setting"
        ) from None
    return sdk, resources, trace, exporter
