"""Python worker driven over its socket in the engine's role."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from engine.runtimes.interpreters import WORKERS, Interpreters
from engine.runtimes.protocol import (
    DONE,
    ITSELF,
    READY,
    RESULT_LIMIT,
    Answer,
    FrameReader,
    Logged,
    Progress,
    invoke_frame,
    setup_frame,
    stop_frame,
)

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")  #: versions of Python on which workers are tested
MAX_WAIT = 60.0  #: seconds after which a test fails; never waited for in a passing test
SETUP: dict[str, Any] = {
    "instance": "i1",
    "layers": [],
    "handler": "index.handler",
    "initializer": "",
    "initializer_timeout": 300,
    "pre_stop": "",
    "concurrency": 1,
    "timeout": 30,
    "memory": 128,
    "cpu": 300,
    "project": "p",
    "package": "default",
    "name": "f",
    "version": "latest",
    "user_data": {},
    "result_limit": RESULT_LIMIT,
}


async def interpreter(version: str) -> str:
    """Return the installed interpreter of that version; skip the test if there is none."""
    command = await Interpreters().worker_command(f"Python{version}")
    if os.path.basename(command[0]) != f"python{version}":
        pytest.skip(f"there is no Python {version} on this machine")
    return command[0]


class Line(NamedTuple):
    ticket: int
    stream: int
    text: str


class PythonProcess:
    """Running worker. ``ready`` is its answer to the setup; ``lines`` holds its output up to the last answer."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        files: Mapping[str, str] | None = None,
        python: str = sys.executable,
        **setup: Any,
    ) -> None:
        code = folder / "code"
        for path, text in {"index.py": source, **(files or {})}.items():
            (code / path).parent.mkdir(parents=True, exist_ok=True)
            (code / path).write_text(text)
        self.lines: list[Line] = []
        self.sizes: list[int] = []  #: text sizes of LOG frames in bytes
        self._reader = FrameReader()
        self._frames: Iterator[Answer | Logged | Progress] = iter(())
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(MAX_WAIT)
        reading, writing = os.pipe()
        self._raw = os.fdopen(reading, "rb")
        self.process = subprocess.Popen(
            [python, "-I", str(WORKERS / "python_worker.py"), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            pass_fds=(theirs.fileno(),),
            cwd=code,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        theirs.close()
        os.close(writing)
        self.socket.sendall(setup_frame({**SETUP, "code": str(code), **setup}))
        self.ready = self.answer()
        assert (self.ready.kind, self.ready.ticket) == (READY, ITSELF)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self._raw.close()

    def ask(self, event: Any = None, ticket: int = 1) -> None:
        self.socket.sendall(invoke_frame(ticket, f"request-{ticket}", "", json.dumps(event).encode()))

    def answer(self) -> Answer:
        """Read frames up to the next answer and return it."""
        return next(frame for frame in self.frames() if isinstance(frame, Answer))

    def call(self, event: Any = None) -> Any:
        """Invoke the handler and return its decoded result."""
        self.ask(event)
        answer = self.answer()
        assert (answer.kind, answer.code) == (DONE, 0), answer
        return json.loads(answer.result) if answer.result else None

    def stop(self) -> int:
        """Stop the worker, read its remaining output and return its exit status."""
        self.socket.sendall(stop_frame())
        assert not any(isinstance(frame, Answer) for frame in self.frames())
        return self.process.wait(MAX_WAIT)

    def raw(self, size: int = -1) -> bytes:
        """Read raw output of stdout and stderr; without a size, everything until no process holds them open."""
        return self._raw.read(size)

    def frames(self) -> Iterator[Answer | Logged | Progress]:
        """Yield frames as they arrive, until the socket is closed."""
        while True:
            for frame in self._frames:
                if isinstance(frame, Logged):
                    self.sizes.append(len(frame.text))
                    texts = frame.text.decode().removesuffix("\n").split("\n")
                    self.lines += [Line(frame.ticket, frame.stream, text) for text in texts]
                yield frame
            data = self.socket.recv(1 << 16)
            if not data:
                return
            self._frames = iter(self._reader.feed(data))
