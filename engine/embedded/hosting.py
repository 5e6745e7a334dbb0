"""Run of an engine with its listener on the event loop of its host, without signal handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import anyio
import structlog

from engine.app.lifecycle import drain
from engine.app.parts import EngineParts
from engine.app.service import listening
from engine.config.settings import Settings
from engine.embedded.logging import log_to_host
from engine.errors.groups import leaves

log = structlog.get_logger("functiond")


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
