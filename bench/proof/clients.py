"""Clients of an engine that is recorded, killed or made to fail. They note each promise that an answer makes."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from bench.proof.promises import Accepted, Deleted, Line, Promise, Published, Put, Uploaded
from bench.server import PROJECT, Engine

ECHO = "def handler(event, context):\n    return 'done'\n"
STREAM, TOPIC, PARTITIONS = "records", "news", 2
FUNCTIONS = f"/v2/{PROJECT}/fgs/functions"
#: Operations of the clients, as often as each is chosen.
WEIGHTS = {"plain": 8, "keyed": 2, "chain": 2, "delayed": 1, "put": 3, "line": 1, "publish": 2, "upload": 2}
_REFUSED = frozenset({429, 500, 503})  #: nothing is promised; all other answers but 2xx are mistakes


class Paths(Struct, frozen=True):
    """Paths of the API to which clients send."""

    lines: str
    topic: str


class Owned(Struct):
    """Function that one client created, and may change or delete."""

    name: str
    version: int
    last: int  #: index of its last promise


def path_of(function: str) -> str:
    return f"{FUNCTIONS}/{quote(f'urn:fss:local-1:{PROJECT}:function:default:{function}', safe=':')}"


def prepare(engine: Engine) -> Paths:
    """Create what the clients use: functions, a stream, a topic, and triggers that read both."""
    for name in ("plain", "chain", "sink", "reader", "listener"):
        engine.deploy(name, ECHO, instances=4)
    sink = {"destination": "FunctionGraph", "param": json.dumps({"func_urn": path_of("sink").rpartition("/")[2]})}
    engine.call("PUT", f"{path_of('chain')}/async-invoke-config", {"destination_config": {"on_success": sink}})
    engine.call("POST", f"/v2/{PROJECT}/streams", {"stream_name": STREAM, "partition_count": PARTITIONS})
    reading = {
        "stream_name": STREAM,
        "sharditerator_type": "TRIM_HORIZON",
        "polling_interval": 1,
        "is_serial": "false",
        "batch_size": 3,
    }
    _add_trigger(engine, "reader", "DIS", reading)
    topics = f"/v2/{PROJECT}/notifications/topics"
    topic = engine.call("POST", topics, {"name": TOPIC, "display_name": ""})["topic_urn"]
    _add_trigger(engine, "listener", "SMN", {"topic_urn": topic})
    groups = f"/v2/{PROJECT}/groups"
    group = engine.call("POST", groups, {"log_group_name": "g", "ttl_in_days": 7})["log_group_id"]
    stream = engine.call("POST", f"{groups}/{group}/streams", {"log_stream_name": "s"})["log_stream_id"]
    lines = f"/v2/{PROJECT}/lts/groups/{group}/streams/{stream}/tenant/contents"
    return Paths(lines, f"{topics}/{topic}/publish")


def _add_trigger(engine: Engine, function: str, kind: str, data: Mapping[str, Any]) -> None:
    body = {"trigger_type_code": kind, "trigger_status": "ACTIVE", "event_data": data}
    engine.call("POST", f"/v2/{PROJECT}/fgs/triggers/{path_of(function).rpartition('/')[2]}", body)


class Clients:
    """Clients of one engine. While ``pause`` is in force, the engine may be gone and come back on another port."""

    def __init__(self, paths: Paths, port: int, position: Callable[[], int] = lambda: 0) -> None:
        self.port = port
        self.promises: list[Any] = []
        self.mistakes: list[str] = []  #: answers that the API does not describe
        self._paths, self._position = paths, position
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self._stopped = False

    @contextmanager
    def sending(self, seed: int, count: int = 4) -> Iterator[None]:
        """Send requests until the block ends."""
        self._stopped = False
        with ThreadPoolExecutor(count) as threads:
            sent = [threads.submit(self._send_all, Random(seed * 1000 + n), f"{seed}-{n}") for n in range(count)]
            try:
                yield
            finally:
                self._stopped = True
                self._going.set()
        for future in sent:
            future.result()

    @contextmanager
    def pause(self) -> Iterator[None]:
        self._going.clear()
        try:
            yield
        finally:
            self._going.set()

    def _send_all(self, random: Random, name: str) -> None:
        client = _Client(self, random, name, self._paths)
        while not self._stopped:
            self._going.wait()
            if not client.send():
                time.sleep(0.01)  # the engine was killed, and will be started again
        client.close()

    # --- called by clients ----------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        return self._position()

    def note(self, *promises: Promise) -> int:
        """Add promises, whose answer has just been read, and return the index of the last one."""
        position = self._position()
        with self._lock:
            self.promises += [replace(promise, position=position) for promise in promises]
            return len(self.promises) - 1

    def changes(self, index: int, position: int) -> None:
        """Note that the promise with this index holds only up to ``position``, where its change was sent."""
        with self._lock:
            self.promises[index] = replace(self.promises[index], until=position)

    def report(self, mistake: str) -> None:
        with self._lock:
            self.mistakes.append(mistake)


class _Client:
    """Client with its connection, its random choices and its functions."""

    def __init__(self, clients: Clients, random: Random, name: str, paths: Paths) -> None:
        self._clients, self._random, self._name, self._paths = clients, random, name, paths
        self._connection: http.client.HTTPConnection | None = None
        self._sent = 0
        self._functions: list[Owned] = []
        self._keyed: tuple[str, str] | None = None  #: key and payload of a request that was not answered

    def send(self) -> bool:
        """Send one request, and return whether it was answered. A keyed one without an answer is sent again later."""
        try:
            if self._keyed is not None:
                self._send_again(*self._keyed)
            else:
                self._sent += 1
                kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                getattr(self, f"_send_{kind}", self._send_invocation)(kind)
        except (OSError, http.client.HTTPException):
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: Any, **headers: str) -> Any:
        """Return the decoded answer, or None if the engine refused for now."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._clients.port, timeout=60)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, data, {"Content-Type": "application/json", **named})
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status < 300:
            return json.loads(content or b"{}")
        if reply.status not in _REFUSED:
            self._clients.report(f"{method} {path} returned {reply.status}: {content[:300]!r}")
        return None

    def _text(self) -> str:
        """Return a text that no other request has, of up to 4 kB."""
        return f"token-{self._name}-{self._sent}-{'x' * int(self._random.paretovariate(0.5) % 4000)}"

    # --- operations -----------------------------------------------------------------------------------------

    def _send_invocation(self, kind: str) -> None:
        payload = json.dumps({"text": self._text()})
        if kind == "keyed":
            self._send_again(f"{self._name}-{self._sent}", payload)
        elif kind == "delayed":
            self._invoke("plain", payload, X_Functiond_Delay=self._random.choice(("0.3", "3600")))
        else:
            self._invoke(kind, payload)

    def _send_again(self, key: str, payload: str) -> None:
        self._keyed = key, payload
        self._invoke("plain", payload, Idempotency_Key=key)
        self._keyed = None

    def _invoke(self, function: str, payload: str, **headers: str) -> None:
        reply = self._ask("POST", f"{path_of(function)}/invocations-async", payload.encode(), **headers)
        if reply is not None:
            key = headers.get("Idempotency_Key", "")
            self._clients.note(Accepted(request_id=reply["request_id"], function=function, payload=payload, key=key))

    def _send_put(self, kind: str) -> None:
        texts = [f"{number}-{self._text()}" for number in range(self._random.randint(1, 4))]
        records = [{"data": base64.b64encode(text.encode()).decode(), "partition_key": text[:40]} for text in texts]
        reply = self._ask("POST", f"/v2/{PROJECT}/records", {"stream_name": STREAM, "records": records})
        if reply is not None:
            self._clients.note(
                *(
                    Put(
                        stream=STREAM,
                        partition=int(record["partition_id"].rpartition("-")[2]),
                        sequence=int(record["sequence_number"]),
                        data=text,
                    )
                    for text, record in zip(texts, reply["records"], strict=True)
                )
            )

    def _send_line(self, kind: str) -> None:
        text = self._text()
        if self._ask("POST", self._paths.lines, {"log_time_ns": 1 << 60, "contents": [text], "labels": {}}) is not None:
            self._clients.note(Line(text=text))

    def _send_publish(self, kind: str) -> None:
        text = self._text()
        if self._ask("POST", self._paths.topic, {"subject": "s", "message": text}) is not None:
            self._clients.note(Published(function="listener", text=text))

    def _send_upload(self, kind: str) -> None:
        """Create a function, or change the code of one, or delete one."""
        owned = self._functions.pop() if self._functions and self._random.random() < 0.7 else None
        if owned is None:
            self._create(f"f-{self._name}-{self._sent}")
            return
        self._clients.changes(owned.last, self._clients.position)
        if owned.version > 1 and self._random.random() < 0.8:
            if self._ask("DELETE", path_of(owned.name), None) is not None:
                self._clients.note(Deleted(function=owned.name))
            return
        fields, files = self._code()
        if self._ask("PUT", f"{path_of(owned.name)}/code", fields) is not None:
            last = self._clients.note(Uploaded(function=owned.name, files=files))
            self._functions.append(Owned(owned.name, owned.version + 1, last))

    def _create(self, name: str) -> None:
        fields, files = self._code()
        body = {"func_name": name, "package": "default", "runtime": "Python3.10", "handler": "index.handler"}
        if self._ask("POST", FUNCTIONS, {**body, "timeout": 3, "memory_size": 128, **fields}) is not None:
            self._functions.append(Owned(name, 1, self._clients.note(Uploaded(function=name, files=files))))

    def _code(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return new code as fields of a request, and as files."""
        source = f"{ECHO}# {self._text()}\n"
        if self._random.random() < 0.5:
            return {"code_type": "inline", "func_code": _encoded(source.encode())}, {"index.py": source}
        files = {"index.py": source, "library/module.py": f"# {self._text()}\n"}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return {"code_type": "zip", "func_code": _encoded(packed.getvalue())}, files


def _encoded(content: bytes) -> dict[str, str]:
    return {"file": base64.b64encode(content).decode()}
