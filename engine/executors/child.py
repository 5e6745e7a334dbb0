"""The process of an instance, whoever forked it: its death, its status, and its group while that is its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class Child(Protocol):
    """It leads a session and a group of its own. Whoever holds the handle calls ``watch``, and ``reap`` when told."""

    @property
    def waits(self) -> bool:
        """Whether it does nothing before it is let in (``Instance.let_in``)."""
        ...

    @property
    def pid(self) -> int:
        """As the engine sees it, 0 before ``spawned``. Its number cannot be another's before ``reap``."""
        ...

    async def spawned(self) -> None:
        """Returns when it exists. Raises OSError if it could not be started."""
        ...

    @property
    def alive(self) -> bool:
        """Until ``gone`` of ``watch`` is called."""
        ...

    @property
    def failure(self) -> OSError | None:
        """What kept it from becoming an instance, once it has ended: then it has read nothing and run no user code."""
        ...

    def watch(self, gone: Callable[[], None]) -> None:
        """``gone`` is called once, by the loop, when it has ended."""
        ...

    def kill(self) -> None:
        """Its whole group, at once; nothing after ``reap``."""
        ...

    def reap(self) -> int | None:
        """How it ended: its status, or minus the signal; None if nobody knows."""
        ...

    def abandon(self) -> None:
        """End one that nobody watches, and forget it. May block for a moment."""
        ...


class OwnChild:
    """A child of this process."""

    waits = False
    failure = None  #: ``spawn`` itself would have raised it

    def __init__(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._process, self._loop = process, loop
        self._pidfd = os.pidfd_open(process.pid)
        self._reaped = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def spawned(self) -> None:
        """It exists."""

    @property
    def alive(self) -> bool:
        return self._pidfd >= 0

    def watch(self, gone: Callable[[], None]) -> None:
        def ended() -> None:
            self._loop.remove_reader(self._pidfd)
            self._close()
            gone()

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
