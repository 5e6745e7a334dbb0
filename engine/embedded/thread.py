"""Thread that runs an engine for a synchronous program.

The kernel kills the instances of an engine when the thread that started them ends, so the thread runs until all of them
have exited. Signals are handled by the main thread, as the program has arranged it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from threading import Thread
from typing import Any

from engine.embedded.hosting import Host, Started


class EngineThread:
    """Thread with an event loop of its own, on which ``make`` makes the run of the engine."""

    def __init__(self, make: Callable[[], Host]) -> None:
        self._make, self._pid = make, os.getpid()
        self._hosted = Future[tuple[Host, asyncio.AbstractEventLoop]]()
        self._started, self._ended = Future[Started](), Future[None]()
        # A daemon: a program that exits without the end of the block ends the engine as a crash does.
        self._thread = Thread(target=self._work, name="functiond-engine", daemon=True)

    def start(self) -> Started:
        """Start the engine, and wait until it accepts requests. Raises the errors of its start."""
        self._thread.start()
        try:
            outcomes: list[Future[Any]] = [self._started, self._ended]
            wait(outcomes, return_when=FIRST_COMPLETED)
        except BaseException:
            self.stop()
            raise
        if not self._started.done():
            self._ended.result()
        return self._started.result()

    def stop(self) -> None:
        """Stop the engine after the grace period, which a KeyboardInterrupt ends. Raises the error that ended it.

        Do nothing in a fork of the program, which has no such thread, and at the exit of the interpreter, where the
        thread runs no more: a block that has not ended may be closed only then.
        """
        if os.getpid() != self._pid or sys.is_finalizing():
            return
        try:
            self._call(Host.stop)
            self._thread.join()
        except KeyboardInterrupt:
            self._call(Host.end_grace)
            self._thread.join()
            raise
        self._ended.result()

    def _call(self, method: Callable[[Host], None]) -> None:
        host, loop = self._hosted.result()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(method, host)

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._run())
        except BaseException as error:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _run(self) -> None:
        host = self._make()
        self._hosted.set_result((host, asyncio.get_running_loop()))
        await host.run(self._started.set_result)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop
