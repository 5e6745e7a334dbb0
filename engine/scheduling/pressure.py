"""Optional pause of asynchronous work while the processors of this host are busy.

The kernel reports waiting tasks by a pressure-stall trigger (Linux: Documentation/accounting/psi.rst). The engine does
not poll while the host is idle.
"""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import SettingsError
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.pressure")

_FILE = Path("/proc/pressure/cpu")
#: The host is busy if tasks wait for 600,000 µs within a window of 2,000,000 µs. The kernel signals once per window at
#: most, and allows unprivileged processes only windows of multiples of 2 s. It overwrites the last byte of the text.
_TRIGGER = b"some 600000 2000000\0"
#: Seconds without a signal after which the host counts as idle again.
QUIET = 2.5
REASON = "the host is busy"


async def watch_pressure(scheduler: Scheduler, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Hold asynchronous work while the host is busy.

    Raises SettingsError if the kernel does not report pressure.
    """
    try:
        pressure = os.open(_FILE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(pressure, _TRIGGER)
    except OSError as error:
        problem = f"queue.host_idle_gate needs {_FILE} (Linux with PSI): {error.strerror}; turn the setting off"
        raise SettingsError(problem) from None
    try:
        with select.epoll() as signals:
            signals.register(pressure, select.EPOLLPRI)
            await follow(signals, scheduler, task_status)
    finally:
        os.close(pressure)


async def follow(
    signals: select.epoll, scheduler: Scheduler, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
) -> None:
    """Hold asynchronous work at a signal, and resume it after ``QUIET`` seconds without a signal.

    ``signals`` polls the kernel's trigger. The kernel clears a signal when the event loop polls it, so that nothing has
    to be read.
    """
    loop, busy = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(signals.fileno(), busy.set)
    try:
        task_status.started()
        while True:
            await busy.wait()
            scheduler.hold(REASON)
            while busy.is_set():
                busy.clear()
                await asyncio.sleep(QUIET)  # runs only while the host is busy
            scheduler.resume(REASON)
    finally:
        loop.remove_reader(signals.fileno())
