"""Load of the kill tests: clients that record every acknowledgement, and functions that record every run."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.acceptance.engine_process import EngineProcess, to_function, urn_of

#: Appends one line per run in a single write: the kind and the id of the original request.
NOTE = """
import json, os, time

def note(context, kind, request_id=None):
    line = f"{kind} {request_id or context.getRequestID()}\\n".encode()
    fd = os.open(context.getUserData("runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line)
    os.close(fd)
"""
SOURCES = {
    "plain": "def handler(event, context):\n    note(context, 'plain')\n    return event\n",
    "slow": "def handler(event, context):\n    note(context, 'slow')\n    time.sleep(0.1)\n",
    # Fails at the first run of each request, when its marker file does not exist yet.
    "flaky": """
def handler(event, context):
    note(context, 'flaky')
    mark = context.getUserData('runs') + '.' + context.getRequestID()
    if not os.path.exists(mark):
        open(mark, 'w').close()
        raise ValueError('the first time')
""",
    "chain": "def handler(event, context):\n    note(context, 'chain')\n    return event\n",
    "sink": "def handler(event, context):\n    note(context, 'sink', event['request_context']['request_id'])\n",
}
KINDS = ("plain", "plain", "plain", "keyed", "batch", "delayed", "slow", "flaky", "chain")
BATCH = 3  #: events of a batch


def deploy(engine: EngineProcess, runs: Path) -> None:
    for name, source in SOURCES.items():
        engine.create(name, NOTE + source, user_data=json.dumps({"runs": str(runs)}))
    engine.configure("flaky", max_async_retry_attempts=2)
    engine.configure("chain", destination_config={"on_success": to_function("sink")})


class Clients:
    """Clients that send until they are stopped. After a kill they wait for the next engine."""

    def __init__(self, engine: EngineProcess, promises: Path) -> None:
        self._promises = promises.open("a")  #: every 202, written with fsync before the next request is sent
        self.acked: dict[str, str] = {}  #: request id -> kind
        self.keys: dict[str, str] = {}  #: idempotency key -> request id
        self.contradictions: list[str] = []  #: keys that were answered with two ids
        self._engine = engine
        self._lock = threading.Lock()
        self._alive = threading.Event()
        self._alive.set()
        self._stopped = False

    @contextmanager
    def sending(self, count: int, seed: int) -> Iterator[None]:
        with ThreadPoolExecutor(count) as threads:
            futures = [threads.submit(self._client, Random(seed + number), number) for number in range(count)]
            try:
                yield
            finally:
                self._stopped = True
                self._alive.set()
        self._promises.close()
        for future in futures:
            future.result()

    @contextmanager
    def dead_engine(self) -> Iterator[None]:
        """Suspend all clients until the block is left."""
        self._alive.clear()
        yield
        self._alive.set()

    def _client(self, random: Random, number: int) -> None:
        sent = 0
        unanswered: tuple[str, str] | None = None
        while not self._stopped:
            self._alive.wait()
            connection = http.client.HTTPConnection("127.0.0.1", self._engine.port, timeout=30)
            try:
                while self._alive.is_set() and not self._stopped:
                    kind, key = unanswered or (random.choice(KINDS), "")
                    if kind in ("keyed", "batch") and not key:
                        sent += 1
                        key = f"{number}-{sent}"
                        key = self._some_key(random, key) if kind == "keyed" else key
                    unanswered = (kind, key) if key else None
                    self._send(connection, kind, key)
                    unanswered = None
            except (OSError, http.client.HTTPException):
                self._alive.wait(0.01)  # the engine was killed; a request without an answer is sent again with its key
            finally:
                connection.close()

    def _some_key(self, random: Random, new: str) -> str:
        """Return the new key, or in a fifth of the calls a key that was answered before."""
        with self._lock:
            return random.choice(list(self.keys)) if self.keys and random.random() < 0.2 else new

    def _send(self, connection: http.client.HTTPConnection, kind: str, key: str) -> None:
        if kind == "batch":
            self._send_batch(connection, [f"{key}-{number}" for number in range(BATCH)])
            return
        name = "plain" if kind in ("keyed", "delayed") else kind
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        if kind == "delayed":
            headers["X-Functiond-Delay"] = "0.3"
        path = f"/v2/project1/fgs/functions/{urn_of(name)}/invocations-async"
        connection.request("POST", path, json.dumps({"key": key}), headers)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status == 202:
            self._note(json.loads(body)["request_id"], name, key)
        elif reply.status not in (429, 503):
            raise AssertionError(f"{reply.status} {body!r}")

    def _send_batch(self, connection: http.client.HTTPConnection, keys: list[str]) -> None:
        path = f"/v2/project1/fgs/functions/{urn_of('plain')}/invocations-async/batch"
        body = json.dumps({"events": [{"event": {"key": key}, "key": key} for key in keys]})
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        answer = reply.read()
        if reply.status not in (202, 429, 503):
            raise AssertionError(f"{reply.status} {answer!r}")
        for key, result in zip(keys, json.loads(answer).get("results", ()), strict=False):
            if "request_id" in result:
                self._note(result["request_id"], "plain", key)

    def _note(self, request_id: str, name: str, key: str) -> None:
        with self._lock:
            self._promises.write(f"{name} {request_id}\n")
            self._promises.flush()
            os.fsync(self._promises.fileno())
            self.acked[request_id] = name
            if key and self.keys.setdefault(key, request_id) != request_id:
                self.contradictions.append(key)


def runs_in(file: Path) -> Counter[tuple[str, str]]:
    """Count the runs by kind and request id."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in file.read_text().splitlines():
        kind, request_id = line.split()
        counts[kind, request_id] += 1
    return counts
