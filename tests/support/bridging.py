"""Bridge program driven over its socket. The test takes the engine's role, and often the runtime's."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from engine.isolation.detect import can_map_ports

WORKER = Path(__file__).parents[2] / "engine" / "workers" / "bridge_worker.py"
SETUP, INVOKE, STOP = 1, 2, 3
READY, DONE = 1, 2
MAX_WAIT = 60.0  #: seconds after which a test fails; never waited for in a passing test

#: A bootstrap that leaves the runtime API to the test.
TELL_ADDRESS = '#!/bin/sh\necho "$RUNTIME_API_ADDR$AWS_LAMBDA_RUNTIME_API"\nexec sleep 1000\n'


class Answer(NamedTuple):
    kind: int
    ticket: int
    code: int
    memory: int
    message: str
    result: bytes

    @property
    def error(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.result)
        return value


class Bridge:
    """Running bridge. ``files`` are placed in the code folder; ``prelude`` runs in the process before the bridge."""

    def __init__(
        self,
        family: str,
        folder: Path,
        files: dict[str, str],
        *,
        network: bool = False,
        prelude: str = "",
        **setup: Any,
    ) -> None:
        self.family = family
        code = folder / "code"
        code.mkdir()
        for name, text in files.items():
            (code / name).write_text(text, errors="surrogateescape", newline="")
            (code / name).chmod(0o755)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(MAX_WAIT)
        command = [sys.executable, "-I", str(WORKER), family, str(theirs.fileno())]
        if prelude:
            command = [sys.executable, "-c", f"import os\n{prelude}\nos.execv({command[0]!r}, {command!r})"]
        environment = {"PATH": os.environ["PATH"], "RUNTIME_REGION": "local-1", "RUNTIME_USERDATA": "{}"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            cwd=code,
            env=environment,
            start_new_session=True,
            preexec_fn=enter_network if network else None,
        )
        theirs.close()
        self._send(SETUP, json.dumps(_SETUP | {"code": str(code)} | setup).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.socket.close()

    def line(self) -> str:
        """Read the next line of the output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def invoke(self, event: str | bytes = b"{}", *, ticket: int = 1, request_id: str = "r-1", alias: str = "") -> None:
        head = struct.pack("!IBB", ticket, len(request_id), len(alias))
        data = event.encode() if isinstance(event, str) else event
        self._send(INVOKE, head + (request_id + alias).encode() + data)

    def stop(self) -> None:
        self._send(STOP, b"")

    def answer(self) -> Answer:
        data = self._exactly(int.from_bytes(self._exactly(4), "big"))
        kind, ticket, code, memory, text = struct.unpack_from("!BIHII", data)
        return Answer(kind, ticket, code, memory, data[15 : 15 + text].decode(), data[15 + text :])

    def ask(self, event: str | bytes = b"{}", **fields: Any) -> Answer:
        self.invoke(event, **fields)
        return self.answer()

    def _send(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack("!IB", 1 + len(body), kind) + body)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class Runtime:
    """Client of the runtime API, on one connection."""

    def __init__(self, bridge: Bridge, root: str, address: str = "") -> None:
        host, _, port = (address or bridge.line()).partition(":")
        self.http = HTTPConnection(host, int(port), timeout=MAX_WAIT)
        self.root = root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def get(self, path: str) -> None:
        """Send a GET request without waiting for the response."""
        self.http.request("GET", self.root + path)

    def response(self) -> tuple[HTTPResponse, bytes]:
        response = self.http.getresponse()
        return response, response.read()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None, **more: Any) -> tuple[int, bytes]:
        self.http.request("POST", self.root + path, body, headers or {}, **more)
        response, content = self.response()
        return response.status, content


_SETUP = {
    "instance": "i-1",
    "layers": [],
    "handler": "index.handler",
    "initializer": "",
    "timeout": 30,
    "memory": 128,
    "cpu": 300,
    "project": "p",
    "package": "default",
    "name": "f",
    "version": "latest",
    "user_data": {},
    "result_limit": 6 << 20,
    "concurrency": 1,
    "pre_stop": "",
    "guarded": False,  # the test may act as the runtime
}


def enter_network() -> None:
    """Move this process into its own network namespace, where port 8000 is free."""
    new_user, new_network, set_flags, up = 0x10000000, 0x40000000, 0x8914, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(new_network) != 0 and libc.unshare(new_user | new_network) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH22x", b"lo", up))


def has_networks() -> bool:
    try:
        subprocess.run(["true"], preexec_fn=enter_network, check=True)
    except subprocess.SubprocessError:
        return False
    return True


needs_network = pytest.mark.skipif(not has_networks(), reason="this machine gives no network namespaces")
needs_mapping = pytest.mark.skipif(not can_map_ports(), reason="the kernel has no notification of bind")
