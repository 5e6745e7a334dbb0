"""Deliveries to an external webhook: signed, repeated until accepted, always with the same id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple

from plugins.webhook.signatures import check_standard
from tests.acceptance.engine_process import engine_on

SECRET = "whsec_YSBrZXkgb2Ygc29tZSBsZW5ndGg="
KEY = b"a key of some length"


class Came(NamedTuple):
    headers: dict[bytes, bytes]
    body: bytes


@contextmanager
def receiver(statuses: list[int]) -> Iterator[tuple[int, Queue[Came]]]:
    """Serve these statuses one after another, then 204; yield the port and a queue of received requests."""
    came: Queue[Came] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower().encode(): value.encode() for name, value in self.headers.items()}
            came.put(Came(headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(statuses.pop(0) if statuses else 204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, came
        finally:
            server.shutdown()
            thread.join()


def test_an_outcome_is_posted_until_it_is_taken(tmp_path: Path) -> None:
    with (
        receiver([500, 503]) as (port, came),
        engine_on(tmp_path / "data", FUNCTIOND_PLUGINS__WEBHOOK__SECRETS__MAIN=SECRET) as engine,
    ):
        engine.create("one", "def handler(event, context):\n    return event['n'] + 1\n")
        param = json.dumps({"url": f"http://127.0.0.1:{port}/outcomes", "secret": "main"})
        engine.configure("one", destination_config={"on_success": {"destination": "WEBHOOK", "param": param}})
        request_id = engine.accepted("one", {"n": 1})
        tries = [came.get(timeout=60) for _ in range(3)]

    ids = {check_standard(KEY, one.headers, one.body, int(one.headers[b"webhook-timestamp"])) for one in tries}
    assert len(ids) == 1
    record = json.loads(tries[-1].body)
    assert (record["request_context"]["request_id"], record["response_payload"]) == (request_id, "2")


def test_a_destination_without_a_whole_url_is_refused(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", "def handler(event, context):\n    return 1\n")
        body = {"destination_config": {"on_failure": {"destination": "WEBHOOK", "param": '{"url": "/x"}'}}}
        path = "/v2/project1/fgs/functions/one/async-invoke-config"

        refused = engine.ask("PUT", path, body)

        assert refused.status == 400
        assert "destination_config.on_failure.param.url is '/x': must be a complete one" in refused.json["error_msg"]
