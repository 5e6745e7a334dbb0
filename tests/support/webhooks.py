"""Receiver of webhooks on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple


class Received(NamedTuple):
    """Request, and the status by which it was answered."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class WebhookReceiver:
    """Receiver that answers by ``statuses`` one after another, then by ``status``. Keeps all requests.

    Answers have the header Location if ``location`` is set.
    """

    def __init__(self, *statuses: int, status: int = 204, location: str = "") -> None:
        self.statuses, self.status, self.requests = [*statuses], status, list[Received]()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status = receiver.statuses.pop(0) if receiver.statuses else receiver.status
                headers = {name.lower().encode(): value.encode() for name, value in self.headers.items()}
                receiver.requests.append(Received(status, headers, self.rfile.read(int(headers[b"content-length"]))))
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@contextmanager
def webhook_receiver(*statuses: int, status: int = 204, location: str = "") -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver(*statuses, status=status, location=location)
    with receiver.server:
        thread = Thread(target=receiver.server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.server.shutdown()
            thread.join()
