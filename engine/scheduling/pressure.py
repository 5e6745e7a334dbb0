"""The optional gate: asynchronous work also waits while tasks on this host queue for its processors.

The kernel tells by a pressure-stall trigger (Documentation/accounting/psi.rst), so nothing is polled: while the host
is idle this sleeps.
"""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path
from typing import Protocol

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import SettingsError

log = structlog.get_logger("functiond.pressure")

_FILE = Path("/proc/pressure/cpu")
#: Microseconds of waiting within a window that count as busy; the kernel tells once a window at most.
#: Windows of whole 2 s are all that an unprivileged process may ask for; the last byte is overwritten by the kernel.
_TRIGGER = b"some 600000 2000000\0"
#: Without news for this many seconds the host counts as idle again.
QUIET = 2.5
REASON = "the host is busy"


class Gate(Protocol):
    """What is held while the host is busy."""

    def hold(self, reason: str) -> None: ...

    def resume(self, reason: str) -> None: ...


async def watch_pressure(gate: Gate, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Hold the gate while the host is busy. Raises SettingsError where the kernel cannot tell."""
    try:
        pressure = os.open(_FILE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(pressure, _TRIGGER)
    except OSError as error:
        problem = f"queue.host_idle_gate needs {_FILE} (Linux with PSI): {error.strerror}"
        raise SettingsError(problem) from None
    try:
        with select.epoll() as news:
            news.register(pressure, select.EPOLLPRI)
            await follow(news, gate, task_status)
    finally:
        os.close(pressure)


async def follow(news: select.epoll, gate: Gate, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Hold the gate from each piece of news until there has been none for a while. That it is ready uses it up."""
    loop, busy = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(news.fileno(), busy.set)
    try:
        task_status.started()
        while True:
            await busy.wait()
            gate.hold(REASON)
            while busy.is_set():
                busy.clear()
                await asyncio.sleep(QUIET)  # a timer that runs only while the host is busy
            gate.resume(REASON)
    finally:
        loop.remove_reader(news.fileno())
