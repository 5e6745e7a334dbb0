"""Receiver of spans over OTLP/HTTP, on a free port of this machine."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received(Struct):
    """Span as the receiver got it, with ids in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    seconds: float
    error: str
    attributes: Mapping[str, Any]
    service: str
    links: list[str]  #: ids of spans


class OtlpReceiver:
    def __init__(self) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.port = 0
        self._spans: list[Received] = []
        self._arrived = Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        spans = [*_decoded(ExportTraceServiceRequest.FromString(content))]
        with self._arrived:
            self.headers.append(headers)
            self._spans += spans
            self._arrived.notify_all()

    def spans(self, count: int) -> list[Received]:
        """Return all spans as soon as there are ``count``."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self._spans) >= count, 60), self._spans
            return list(self._spans)


def _decoded(request: Any) -> Iterator[Received]:
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    error=span.status.message,
                    attributes=_attributes(span.attributes),
                    service=about["service.name"],
                    links=[link.span_id.hex() for link in span.links],
                )


def _attributes(pairs: Any) -> Mapping[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.take(headers, self.rfile.read(int(headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_port
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
