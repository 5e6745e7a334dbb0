"""Work of the chaos: functions whose runs write signs of life to a file, and clients that note what was accepted."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from urllib.parse import quote

from msgspec import Struct

from bench.server import PROJECT, Engine

#: Seconds of a run: short, or longer than a lease, so that a run that starts too early meets the one before.
_SHORT, _LONG, _LONG_SHARE = (0.1, 1.2), (2.0, 6.0), 0.4
_TIMEOUT = 20.0  #: seconds for an answer; the engine may be stopped meanwhile

#: Appends ``nanoseconds kind id run``, by the monotonic clock, which all processes of a machine share.
_PYTHON = """
import os, time, uuid

def handler(event, context):
    file = os.open(context.getUserData("runs"), os.O_WRONLY | os.O_APPEND)
    request, run = context.getRequestID(), uuid.uuid4().hex

    def note(kind):
        os.write(file, f"{time.monotonic_ns()} {kind} {request} {run}\\n".encode())

    note("begin")
    end = time.monotonic() + event["seconds"]
    while time.monotonic() < end:
        time.sleep(0.02)
        note("alive")
    note("end")
    os.close(file)
    return run
"""
_NODE = """
const fs = require('fs');
const crypto = require('crypto');

exports.handler = async (event, context) => {
  const file = fs.openSync(context.getUserData('runs'), 'a');
  const request = context.getRequestID(), run = crypto.randomUUID().replaceAll('-', '');
  const now = () => process.hrtime.bigint();
  const note = (kind) => fs.writeSync(file, `${now()} ${kind} ${request} ${run}\\n`);
  note('begin');
  const end = now() + BigInt(Math.round(event.seconds * 1e9));
  while (now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    note('alive');
  }
  note('end');
  fs.closeSync(file);
  return run;
};
"""


class Kind(Struct, frozen=True):
    """Function of the load."""

    runtime: str
    source: str
    concurrency: int


KINDS = {
    "one": Kind("Python3.10", _PYTHON, 1),
    "four": Kind("Python3.10", _PYTHON, 4),
    "node": Kind("Node.js18.15", _NODE, 1),
}


class Accepted(Struct, frozen=True):
    function: str  #: path in the API
    request_id: str


def deploy(server: Engine, runs: Path) -> list[str]:
    """Create the functions, and return their paths in the API."""
    functions = f"/v2/{PROJECT}/fgs/functions"
    paths = []
    for name, kind in KINDS.items():
        body = {
            "func_name": name,
            "package": "default",
            "runtime": kind.runtime,
            "handler": "index.handler",
            "timeout": 900,
            "memory_size": 128,
            "code_type": "inline",
            "func_code": {"file": base64.b64encode(kind.source.encode()).decode()},
            "user_data": json.dumps({"runs": str(runs)}),
            "strategy_config": {"concurrency": 400, "concurrent_num": kind.concurrency},
        }
        server.call("POST", functions, body)
        path = f"{functions}/{quote(f'urn:fss:local-1:{PROJECT}:function:default:{name}', safe=':')}"
        limits = {"max_async_retry_attempts": 0, "max_async_event_age_in_seconds": 86_400}
        server.call("PUT", f"{path}/async-invoke-config", limits)
        paths.append(path)
    return paths


class Clients:
    """Clients of an engine that may be killed, and may come back on another port."""

    def __init__(self, functions: list[str], port: int) -> None:
        self.port = port
        self.accepted: list[Accepted] = []
        self.unanswered = 0
        self._functions = functions
        self._stopped = threading.Event()

    @contextmanager
    def sending(self, rate: float, seed: int) -> Iterator[None]:
        """Send ``rate`` requests a second until the block ends, as far as the engine answers."""
        count = len(self._functions)
        threads = [
            threading.Thread(target=self._send_all, args=(path, rate / count, Random(seed * 1000 + number)))
            for number, path in enumerate(self._functions)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _send_all(self, function: str, rate: float, random: Random) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            due = max(due + random.expovariate(rate), time.monotonic() - 1)  # makes up for one second at most
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                break
            seconds = random.uniform(*(_LONG if random.random() < _LONG_SHARE else _SHORT))
            try:
                request_id = self._send(function, {"seconds": round(seconds, 3)})
            except (OSError, http.client.HTTPException, ValueError):
                self.unanswered += 1  # nothing was promised
                continue
            self.accepted.append(Accepted(function, request_id))

    def _send(self, function: str, event: object) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"{function}/invocations-async", json.dumps(event), headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 202:
                raise ValueError(f"the engine answered {answer.status}: {text[:200]!r}")
            return str(json.loads(text)["request_id"])
        finally:
            connection.close()
