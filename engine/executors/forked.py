"""An instance's process that a template has forked: a grandchild, whose death and status come by different ways.

    asked ──▶ born ──▶ dead, with a status
       └──────────────▶ failed

Its pidfd tells the truth about its death, the template why it died. The template keeps it as a zombie until ``reap``,
so that its number cannot be another's; when the template is gone that care is, too, and nobody knows the status.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_LATE = 5.0  #: seconds that the status may come after the death; a stopped template must not hold an instance


class ForkedChild:
    """Satisfies ``engine.executors.child.Child``."""

    waits = True

    def __init__(self, release: Callable[[], None], max_wait: float, late: Callable[[], None]) -> None:
        """``release`` lets the template reap; ``late`` is called if it is not born within so many seconds."""
        self.pid = 0  #: until it is born
        self.exists = False  #: whether the template has it
        self.alive = True
        self.failure: OSError | None = None
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._birth: asyncio.Future[None] = self._loop.create_future()
        self._error: OSError | None = None
        self._gone: Callable[[], None] = lambda: None
        self._status: int | None = None
        self._pidfd = -1
        self._overdue = self._loop.call_later(max_wait, late)
        self._timer: asyncio.TimerHandle | None = None
        self._doomed = self._dead = self._orphan = self._reaped = False

    # --- for who has asked for it ---

    async def spawned(self) -> None:
        await asyncio.shield(self._birth)
        if self._error is not None:
            raise self._error

    def watch(self, gone: Callable[[], None]) -> None:
        self._gone = gone

    def kill(self) -> None:
        self._doomed = True
        if self._pidfd >= 0:
            # Both: it may not have made its group yet, and the first process of a pid space is in another one.
            self._kill_group()
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        if not self._reaped:
            self._reaped = True
            self._close()
            self._release()
        return self._status

    def abandon(self) -> None:
        self.kill()
        self.watch(self._forget)

    # --- what the template tells ---

    def on_spawned(self, pidfd: int) -> None:
        self._overdue.cancel()
        self.exists, self._pidfd = True, pidfd
        self._loop.add_reader(pidfd, self._died)
        try:
            self.pid = _pid_of(pidfd)
        except OSError as error:  # there is no descriptor to look it up with
            self._error, self._doomed = error, True
        self._birth.set_result(None)
        if self._doomed:
            self.kill()

    def failed(self, error: OSError) -> None:
        self._overdue.cancel()
        self._error = error
        self._birth.set_result(None)
        self._conclude()

    def told(self, status: int, failure: OSError | None = None) -> None:
        self._status, self.failure = status, failure
        self._conclude()

    def orphaned(self, reason: str) -> None:
        """The template is gone."""
        self._orphan = True
        if not self._birth.done():
            self.failed(OSError(errno.ECHILD, f"no process for it came to be: {reason}"))
        elif self._dead:
            self._conclude()

    # --- within ---

    def _forget(self) -> None:
        self.reap()

    def _kill_group(self) -> None:
        if self.pid and not (self._orphan and self._dead):  # then its number may already be another's
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _died(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._dead = True
        if self._orphan:
            self._conclude()
        elif self.alive:
            self._timer = self._loop.call_later(_LATE, self._conclude)

    def _conclude(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pidfd >= 0 and not self._dead:
            self._loop.remove_reader(self._pidfd)
            self._dead = True
        if self.alive:
            self.alive = False
            self._gone()

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _pid_of(pidfd: int) -> int:
    """As this process sees it: the template may live in another space of process ids."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
