"""Run of an engine inside a program: on the event loop of its host, as a task, or on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractAsyncContextManager, suppress
from threading import Thread
from typing import Any, NamedTuple, cast

import anyio
import structlog
import uvloop
from structlog.typing import EventDict, Processor, WrappedLogger

from engine.app.lifecycle import drain
from engine.app.parts import EngineParts
from engine.app.service import listening
from engine.config.settings import Settings
from engine.errors.groups import leaves

ROOT = "functiond"  #: the engine's loggers have this name, or one below it
log = structlog.get_logger("functiond")


def log_to_host() -> None:
    """Hand the engine's log to ``logging``, unless the program has configured structlog itself.

    Other loggers of structlog keep its defaults: the program may use them without any configuration.
    """
    if structlog.is_configured():
        return
    defaults = structlog.get_config()
    others: Callable[..., WrappedLogger] = defaults["logger_factory"]
    wrap_other: Callable[..., Any] = defaults["wrapper_class"]

    def make(*name: Any) -> WrappedLogger:
        return logging.getLogger(name[0]) if name and _is_engines(name[0]) else others(*name)

    def wrap(logger: WrappedLogger, processors: list[Processor], context: dict[str, Any]) -> Any:
        if isinstance(logger, logging.Logger) and _is_engines(logger.name):
            engines: list[Processor] = [structlog.stdlib.filter_by_level, _to_record]
            return structlog.stdlib.BoundLogger(logger, engines, context)
        return wrap_other(logger, processors=processors, context=context)

    structlog.configure(wrapper_class=cast(Any, wrap), logger_factory=make)


def _is_engines(name: object) -> bool:
    return f"{name}.".startswith(f"{ROOT}.")


def _to_record(logger: object, method: str, event: EventDict) -> tuple[tuple[str, str], dict[str, object]]:
    """Return the arguments of a method of ``logging.Logger``: the event with its values as one line of text."""
    traceback = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
    text = [str(event.pop("event")), *(f"{name}={value}" for name, value in event.items())]
    return ("%s", " ".join(text)), traceback


class Started(NamedTuple):
    """URL and settings of an engine that accepts requests."""

    url: str
    settings: Settings


class Host:
    """Run of an engine. Construct and use it on the event loop that runs the engine."""

    def __init__(self, make_engine: Callable[[], AbstractAsyncContextManager[EngineParts]]) -> None:
        self._make_engine = make_engine
        self._stop, self._grace = asyncio.Event(), anyio.CancelScope()

    async def run(self, started: Callable[[Started], object]) -> None:
        """Run the engine until ``stop``. Call ``started`` when it accepts requests.

        Raises the errors of ``run_engine``; one that came alone is not in a group.
        """
        try:
            await self._run(started)
        except BaseExceptionGroup as group:
            first, *others = leaves(group)
            if others:
                raise
            raise first from None

    def stop(self) -> None:
        """Stop accepting requests, and end after the grace period for running invocations."""
        self._stop.set()

    def end_grace(self) -> None:
        """End the grace period at once."""
        self._grace.cancel()

    async def _run(self, started: Callable[[Started], object]) -> None:
        log_to_host()
        async with self._make_engine() as engine, listening(engine) as url:
            log.info("serving", url=url)
            started(Started(url, engine.settings))
            await self._stop.wait()
            await drain(engine, self._grace)  # meanwhile, waiting callers get their results
        log.info("stopped")


class EngineTask:
    """Task of its own, so that the tasks of the program may start and stop the engine in any order."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(host.run(self._started.set_result), name="functiond-engine")

    async def start(self) -> Started:
        """Wait until the engine accepts requests. Raises the errors of its start."""
        try:
            await asyncio.wait((self._task, self._started), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        if not self._started.done():
            await self._task
        return self._started.result()

    async def stop(self) -> None:
        """Stop the engine after the grace period, which a cancellation ends. Raises the error that ended it."""
        self._host.stop()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._host.end_grace()
            await asyncio.wait((self._task,))
            raise
        await self._task


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
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._run())
        except BaseException as error:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _run(self) -> None:
        host = self._make()
        self._hosted.set_result((host, asyncio.get_running_loop()))
        await host.run(self._started.set_result)
