"""Placement process, ``engine/workers/ray_placement.py``: the link to a Ray cluster, started again after its end."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Any

import structlog
from anyio import move_on_after

from engine.runtimes.interpreters import WORKERS

_PAUSE, _LONG_PAUSE = 1.0, 10.0  #: seconds until the process is started again; the second if it had not connected
_LONGEST_LINE = 16 << 20  #: bytes; 1,000 nodes need half a megabyte
_SILENCE, _CONNECT_TIMEOUT = 15.0, 120.0  #: seconds without a message until the process is killed; before the first
_END_TIMEOUT = 8.0  #: seconds from the end of its input to its exit; it waits 5 s for agents

Message = dict[str, Any]

log = structlog.get_logger("functiond.nodes")


class RayLink:
    """Placement process for the cluster whose head is at ``address``, run by the interpreter ``python``.

    ``handle`` gets each message of the process, and ``{"exited": reason}`` after its end.
    """

    def __init__(self, python: str, address: str, handle: Callable[[Message], None]) -> None:
        self.problem = "the placement process has not connected to Ray yet"  #: empty: the head answers
        self.connected = self._closing = False
        self._command = (python, str(WORKERS / "ray_placement.py"), address)
        self._handle = handle
        self._process: Process | None = None
        self._stdin: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Run the process until ``close``, and start it again after its end."""
        while not self._closing:
            try:
                reason = await self._run_once()
            except (OSError, ValueError) as error:
                reason = f"the placement process failed: {error or 'it does not answer'}; see executor.nodes.python"
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
            pause, self.connected = _PAUSE if self.connected else _LONG_PAUSE, False
            if not self._closing:
                self._set_problem(reason)
                self._handle({"exited": reason})
                await asyncio.sleep(pause)

    def send(self, **message: Any) -> None:
        """Send a message. Without a connection, it is dropped: Ray has ended all that an earlier process asked for."""
        if self.connected and self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """End the process. Ray then removes its grants and supervisors."""
        self._closing = True
        if self._process is not None and self._stdin is not None:
            self._stdin.close()
            with move_on_after(_END_TIMEOUT):
                await self._process.wait()

    async def _run_once(self) -> str:
        """Run a process, and return why it has ended. Raises OSError, ValueError, or TimeoutError if it is silent."""
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE
        )
        assert process.stdout is not None
        self._stdin, last = process.stdin, ""
        while True:
            async with asyncio.timeout(_SILENCE if self.connected else _CONNECT_TIMEOUT):
                line = await process.stdout.readline()
            if not line.endswith(b"\n"):  # the process has ended, perhaps while it wrote
                return last or f"the placement process has ended with status {await process.wait()}"
            message = json.loads(line)
            if message == {"problem": self.problem}:
                continue  # a sign of life
            if "ready" in message:
                self.connected = True
                log.info("connected to Ray", **message["ready"])
            last = message.get("refused", message.get("problem", last))
            self._set_problem(message.get("problem", self.problem))
            self._handle(message)

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("nothing is placed on nodes of Ray", reason=problem)
        self.problem = problem
