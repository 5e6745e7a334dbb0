"""Child processes: the interface to a process of this machine, whether its parent is the engine or a template."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class ChildProcess(Protocol):
    """Process that leads a session and a process group.

    The owner calls ``watch``, then ``reap`` after the process has exited.
    """

    waits: bool  #: the new process waits for the descriptors of its cgroups before it does anything
    #: Error that kept the process from becoming an instance, or None. Available after the exit. A process with such an
    #: error has read no request and run no user code.
    failure: OSError | None

    @property
    def pid(self) -> int:
        """Process id as the engine sees it; 0 until the process exists (see ``spawned``).

        The kernel gives the id to no other process before ``reap``, unless the parent of the process has exited.
        """
        ...

    async def spawned(self) -> None:
        """Wait until the process exists. Raises OSError if it could not be started."""
        ...

    @property
    def alive(self) -> bool:
        """True until the callback of ``watch`` is called."""
        ...

    def watch(self, on_exit: Callable[[], object]) -> None:
        """Call ``on_exit`` once, from the event loop, when the process has exited."""
        ...

    def kill(self) -> None:
        """Kill the process group of the process, at once or as soon as the process exists.

        Do nothing after ``reap``.
        """
        ...

    def reap(self) -> int | None:
        """Release the process id.

        Return the exit status, the negated signal number, or None if the status is unknown.
        """
        ...

    def abandon(self) -> None:
        """Kill and reap a process for which ``watch`` was not called. May block briefly."""
        ...


class OwnChild:
    """Process that the engine itself started, and not a template."""

    waits = False
    failure: OSError | None = None  #: ``launch`` raises such errors

    def __init__(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._process, self._loop = process, loop
        self._pidfd = os.pidfd_open(process.pid)
        self._reaped = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def spawned(self) -> None:
        """Return at once, because the process exists already."""

    @property
    def alive(self) -> bool:
        return self._pidfd >= 0

    def watch(self, on_exit: Callable[[], object]) -> None:
        def ended() -> None:
            self._loop.remove_reader(self._pidfd)
            self._close()
            on_exit()

        self._loop.add_reader(self._pidfd, ended)

    def kill(self) -> None:
        if not self._reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        self._reaped = True
        return self._process.wait()

    def abandon(self) -> None:
        self.kill()
        self.reap()
        self._close()

    def _close(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1
