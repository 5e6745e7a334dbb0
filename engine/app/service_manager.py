"""Messages to the service manager that started the process, by the protocol of systemd's ``sd_notify``.

They go to the datagram socket that the variable NOTIFY_SOCKET names. The manager may restart a process that gives no
signs of life. None is given while the event loop is held, or work stands still that a restart sets going. An idle
engine wakes twice in the manager's interval, and not at all if the manager expects no signs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import structlog

log = structlog.get_logger("functiond")


class ServiceManager:
    """Service manager that waits for messages. ``watchdog`` is the longest time in seconds between two signs of life.

    Messages that cannot be sent are logged: the manager then acts as if the process had said nothing.
    """

    def __init__(self, address: str, watchdog: float = 0.0) -> None:
        self.watchdog = watchdog  #: 0: no signs of life are expected
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Report the block as a reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._send("READY=1")

    def _send(self, *lines: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                log.warning("service manager not told", message=lines[0], problem=str(error))


def service_manager(environ: Mapping[str, str] = os.environ) -> ServiceManager | None:
    """Return the service manager that the environment names; None if there is none."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    meant = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    microseconds = environ.get("WATCHDOG_USEC", "") if meant else ""
    return ServiceManager(address, int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0)


@asynccontextmanager
async def signs_of_life(manager: ServiceManager | None, stalls: Callable[[], Mapping[str, Any]]) -> AsyncIterator[None]:
    """Give signs of life until the block ends, while ``stalls`` returns nothing."""
    if manager is None or not manager.watchdog:
        yield
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_signal, manager, stalls)
        yield
        tasks.cancel_scope.cancel()


async def _signal(manager: ServiceManager, stalls: Callable[[], Mapping[str, Any]]) -> None:
    stalled = False
    while True:
        problems = stalls()
        if not problems:
            manager.alive()
        if problems and not stalled:
            log.error("the watchdog gets no signs of life", **problems)
        if bool(problems) != stalled:
            manager.status("; ".join(f"{part}: {problem}" for part, problem in problems.items()) or "serving again")
        stalled = bool(problems)
        await anyio.sleep(manager.watchdog / 2)
