"""Server processes that benchmarks measure.

They are an engine, started by its command as users start it, and an empty Starlette application as baseline.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from bench.attack import anonymous_tls
from bench.load import Job, Report

PROJECT = "bench"
#: Seconds that a process gets to start, to stop, or to reach an awaited state.
MAX_WAIT = 120.0
_PIPE = 2.0  #: seconds from the end of a process to that of its stderr

NOOP = "def handler(event, context):\n    return ''\n"
HELD = "import time\ndef handler(event, context):\n    time.sleep(3600)\n"


class ServerFailed(Exception):
    """Failure or timeout of a server process."""


class Process:
    """Server process that reports its port on stderr, in a JSON line with the event "serving"."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self._last: deque[str] = deque(maxlen=200)
        self._serving = threading.Event()
        self.port = 0
        self.started_at = time.time_ns()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *command],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        """Last lines that the process wrote to stderr."""
        return "".join(self._last)

    def wait(self, seconds: float = MAX_WAIT) -> int | None:
        """Return the exit code of the process, or None if it does not exit within ``seconds``."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until_serving(self) -> None:
        if not self._serving.wait(MAX_WAIT) or not self.port:
            self.kill()
            raise ServerFailed("the server did not start:\n" + "".join([*self._last][-20:]))

    def stop(self) -> None:
        """Stop the server by SIGTERM. If it does not exit in time, kill it and raise ServerFailed."""
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(MAX_WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed("the server did not stop:\n" + "".join([*self._last][-20:])) from None
        self._reap()

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reap()

    def end(self) -> None:
        """Stop the server unless it has exited, and close the pipe from its stderr."""
        if self._popen.poll() is None:
            self.stop()
        else:
            self._reap()

    def _reap(self) -> None:
        self._reader.join(_PIPE)
        assert self._popen.stderr is not None
        if not self._reader.is_alive():  # else a child of a killed process still holds the pipe
            self._popen.stderr.close()

    def _read(self) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self._last.append(line)
            if not self.port and '"serving"' in line:
                self.port = int(json.loads(line)["port"])
                self._serving.set()
        self._serving.set()


class Engine(Process):
    """Engine process, and client of its API.

    ``profile`` is the file for statistics of cProfile; if empty, nothing is profiled. ``lag`` is the file for the lag
    of the event loop; if empty, that is not measured.
    """

    def __init__(self, directory: Path, *, profile: str = "", lag: str = "", **environment: str) -> None:
        measured = ["bench.lagging", lag] if lag else ["engine", "serve"]
        module = ["bench.profiled", profile] if profile else measured
        options = ["--data-dir", str(directory), "--port", "0", "--log-format", "json"]
        self._https = "FUNCTIOND_HTTP__TLS_CERTIFICATE" in environment
        super().__init__([*module, *options], FUNCTIOND_GRACE="1", **environment)

    def lines(self, method: str, path: str, body: Any = None) -> list[Any]:
        """Return the lines of a reply that is JSON lines."""
        text: Any = self.call(method, path, body, lines=True)
        return [json.loads(line) for line in text.splitlines()]

    def call(self, method: str, path: str, body: Any = None, *, lines: bool = False) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=MAX_WAIT)
        if self._https:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=MAX_WAIT, context=anonymous_tls())
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise ServerFailed(f"{method} {path} returned {answer.status}: {text[:500]!r}")
        return json.loads(text) if text.startswith((b"{", b"[")) and not lines else text.decode()

    def metric(self, name: str) -> float:
        """Return the value of an engine metric without labels. Raises ServerFailed if it does not exist."""
        text: str = self.call("GET", "/metrics")
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == f"functiond_{name}":
                return float(value)
        raise ServerFailed(f"the engine has no metric {name}")

    def commits(self) -> tuple[float, float]:
        """Return two counts since the engine started: commits of its database, and rows in all of these commits."""
        return self.metric("commit_rows_count"), self.metric("commit_rows_sum")

    def deploy(self, name: str, source: str, *, instances: int = 400, project: str = PROJECT, memory: int = 128) -> str:
        """Create a function with ``source`` as its code, and return the function's path in the API."""
        body = {
            "func_name": name,
            "package": "default",
            "runtime": "Python3.10",
            "handler": "index.handler",
            "timeout": 900,
            "memory_size": memory,
            "code_type": "inline",
            "func_code": {"file": base64.b64encode(source.encode()).decode()},
            "strategy_config": {"concurrency": instances, "concurrent_num": 1},
        }
        self.call("POST", f"/v2/{project}/fgs/functions", body)
        return f"/v2/{project}/fgs/functions/{quote(f'urn:fss:local-1:{project}:function:default:{name}', safe=':')}"

    def wait_for(self, function: str, request_id: str) -> None:
        """Return when the invocation with this request id has ended, or after a minute if it has not ended by then."""
        self.call("GET", f"{function}/async-invocations/{request_id}?wait=60")

    def wait_for_all(self, function: str, last: Sequence[str]) -> None:
        """Return when all accepted invocations of the function have ended.

        ``last`` are the replies to the latest requests.
        """
        for reply in last:
            self.wait_for(function, json.loads(reply)["request_id"])
        while active := self.call("GET", f"{function}/active-async-invocations")["invocations"]:
            self.wait_for(function, active[-1]["request_id"])

    def ended(self, function: str, status: str = "SUCCESS") -> int:
        """Return the number of the function's invocations that have ended with ``status``."""
        return int(self.call("GET", f"{function}/async-invocations?status={status}&limit=1")["count"])


def until(true: Callable[[], bool], problem: str) -> None:
    """Return when ``true()`` returns True. Raises ServerFailed with ``problem`` after ``MAX_WAIT`` seconds."""
    deadline = time.perf_counter() + MAX_WAIT
    while not true():
        if time.perf_counter() > deadline:
            raise ServerFailed(f"{problem} in {MAX_WAIT:g} s")
        time.sleep(0.02)


@contextmanager
def engine(directory: Path, *, profile: str = "", lag: str = "", **environment: str) -> Iterator[Engine]:
    server = Engine(directory, profile=profile, lag=lag, **environment)
    try:
        server.wait_until_serving()
        yield server
    finally:
        server.end()


@contextmanager
def starlette() -> Iterator[Process]:
    """Run the baseline: a Starlette application with an empty POST handler, on uvicorn with httptools and uvloop."""
    server = Process(["bench.baseline"])
    try:
        server.wait_until_serving()
        yield server
    finally:
        server.end()


def load(job: Job) -> Report:
    """Run the load generator in a separate process, and return its report."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, timeout=job.seconds + 120)
    if done.returncode:
        raise ServerFailed(f"the load generator failed: {done.stderr.decode()[-1000:]}")
    report = msgspec.json.decode(done.stdout, type=Report)
    if set(report.statuses) - {200, 202}:
        raise ServerFailed(f"requests were rejected or lost; count by status: {report.statuses}")
    return report
