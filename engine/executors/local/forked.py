"""Instance process forked by a template: a grandchild of the engine.

    requested ──▶ spawned ──▶ exited, with a status
        └────────────▶ failed

The pidfd of the process reports the exit; the template reports the exit status. The template keeps the process as a
zombie until ``reap``, so that the kernel does not reuse its pid. If the template has exited, the pid may be reused
and the exit status is unknown.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_STATUS_TIMEOUT = 5.0  #: seconds from exit to status; a stopped template must not block an instance


class ForkedChild:
    """Process forked by a template.

    Is awaited, watched, killed and reaped like a child of the engine (``ChildProcess``).
    """

    waits = True

    def __init__(self, release: Callable[[], None], max_wait: float, on_overdue: Callable[[], None]) -> None:
        """Create the object when the fork is requested from the template.

        ``release`` is called to let the template reap the process. ``on_overdue`` is called if the process does not
        exist ``max_wait`` seconds after the request.
        """
        self.pid = 0  #: 0 until spawned
        self.exists = False  #: spawned; the template holds the process
        self.alive = True
        self.failure: OSError | None = None
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._spawned: asyncio.Future[None] = self._loop.create_future()
        self._error: OSError | None = None
        self._on_exit: Callable[[], None] = lambda: None
        self._status: int | None = None
        self._pidfd = -1
        self._spawn_timer = self._loop.call_later(max_wait, on_overdue)
        self._status_timer: asyncio.TimerHandle | None = None
        self._kill_requested = self._exited = self._template_gone = self._reaped = False

    # --- called by the owner ---

    async def spawned(self) -> None:
        await asyncio.shield(self._spawned)
        if self._error is not None:
            raise self._error

    def watch(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit

    def kill(self) -> None:
        self._kill_requested = True
        if self._pidfd >= 0:
            # Both, because the process may not have created its group yet. The first process of a pid namespace is in
            # another group than its instance.
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
        self.watch(self._reap_ignored)

    # --- called by the template ---

    def on_spawned(self, pidfd: int) -> None:
        self._spawn_timer.cancel()
        self.exists, self._pidfd = True, pidfd
        self._loop.add_reader(pidfd, self._process_exited)
        try:
            self.pid = _pid_of(pidfd)
        except OSError as error:  # no free descriptor to look the pid up
            self._error, self._kill_requested = error, True
        self._spawned.set_result(None)
        if self._kill_requested:
            self.kill()

    def on_failed(self, error: OSError) -> None:
        self._spawn_timer.cancel()
        self._error = error
        self._spawned.set_result(None)
        self._conclude()

    def on_status(self, status: int, failure: OSError | None = None) -> None:
        self._status, self.failure = status, failure
        self._conclude()

    def on_template_exit(self, reason: str) -> None:
        """Handle the exit of the template.

        If the process does not exist yet, the start counts as failed, with ``reason`` in the text of its error. If the
        process has exited, its exit status remains unknown.
        """
        self._template_gone = True
        if not self._spawned.done():
            self.on_failed(OSError(errno.ECHILD, f"the process was not spawned: {reason}"))
        elif self._exited:
            self._conclude()

    # --- internal ---

    def _reap_ignored(self) -> None:
        self.reap()

    def _kill_group(self) -> None:
        if self.pid and not (self._template_gone and self._exited):  # otherwise the pid may have been reused
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _process_exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited = True
        if self._template_gone:
            self._conclude()
        elif self.alive:
            self._status_timer = self._loop.call_later(_STATUS_TIMEOUT, self._conclude)

    def _conclude(self) -> None:
        if self._status_timer is not None:
            self._status_timer.cancel()
        if self._pidfd >= 0 and not self._exited:
            self._loop.remove_reader(self._pidfd)
            self._exited = True
        if self.alive:
            self.alive = False
            self._on_exit()

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _pid_of(pidfd: int) -> int:
    """Return the pid of a pidfd's process as the engine sees it; the template may be in another pid namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
