"""Engine that is killed at random moments, with a client that repeats a request until the engine has answered it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

from bench.server import MAX_WAIT, Engine, ServerFailed

#: Functions write to a file of the host, which a sandbox would hide.
ENVIRONMENT = {"FUNCTIOND_EXECUTOR__ISOLATION": "process"}
KILLED_STARTS = 0.2  #: share of the starts that are killed, too
START = 0.6  #: seconds of a start
NOTE = """import json, os, time

def note(context, *words):
    file = os.open({runs!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join([context.getRequestID(), *map(str, words)]) + "\\n").encode())
    os.close(file)

"""


def noting(runs: Path, source: str) -> str:
    """Return the source with ``note(context, …)``, which adds a line to a file in one write, so that kills spare it."""
    return NOTE.format(runs=str(runs)) + source


class KilledEngine:
    """Engine on one data directory, started again after each kill. ``kills`` counts those after the first start."""

    def __init__(self, directory: Path, random: Random, **environment: str) -> None:
        self.kills = 0
        self.random = random
        self._directory, self._environment = directory, {**ENVIRONMENT, **environment}
        self._kill: threading.Timer | None = None
        self.server = Engine(directory, **self._environment)
        self.server.wait_until_serving()

    def kill_within(self, seconds: float) -> None:
        """Kill the engine at a random moment of the next ``seconds``. The caller goes on meanwhile."""
        self.settle()
        self._kill = threading.Timer(self.random.uniform(0, seconds), self.server.signal, [SIGKILL])
        self._kill.start()

    def settle(self) -> None:
        """Return when the engine runs again after the kill that was ordered, if one was."""
        while self._kill is not None:
            self._restart()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the reply to a request, which is repeated after each kill that prevents a reply."""
        while True:
            try:
                return self.server.call(method, path, body)
            except (OSError, http.client.HTTPException):
                if self._kill is None:
                    raise
                self._restart()

    def wait(self, wanted: int, count: Callable[[], int]) -> None:
        """Return when ``count()`` is at least ``wanted``. Raises ServerFailed if it does not rise for too long."""
        last, deadline = -1, 0.0
        while (seen := count()) < wanted:
            if seen > last:
                last, deadline = seen, time.perf_counter() + MAX_WAIT
            if time.perf_counter() > deadline:
                raise ServerFailed(f"{seen} of {wanted}, and no more in {MAX_WAIT:g} s")
            time.sleep(0.02)

    def _restart(self) -> None:
        while self._kill is not None:
            self._end_killed()
            self.server = Engine(self._directory, **self._environment)
            if self.random.random() < KILLED_STARTS:
                self._kill = threading.Timer(self.random.uniform(0, START), self.server.signal, [SIGKILL])
                self._kill.start()
            try:
                self.server.wait_until_serving()
            except ServerFailed:
                if self._kill is None:
                    raise
            else:
                return

    def _end_killed(self) -> None:
        assert self._kill is not None
        self._kill.join()
        if (code := self.server.wait()) != -SIGKILL:
            raise ServerFailed(f"the engine ended with {code} before it was killed:\n{self.server.log[-3000:]}")
        self.server.kill()  # closes its pipe
        self._kill = None
        self.kills += 1


@contextmanager
def killed_engine(directory: Path, random: Random, **environment: str) -> Iterator[KilledEngine]:
    engine = KilledEngine(directory, random, **environment)
    try:
        yield engine
    finally:
        engine.settle()
        engine.server.end()
