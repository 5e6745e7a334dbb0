"""Signs of life to the service manager, which restarts a process that gives none.

None is given while the event loop is held, or work stands still that a restart sets going. An idle engine wakes twice
in the manager's interval, and not at all if the manager expects no signs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog

from engine.app.service_manager import ServiceManager

log = structlog.get_logger("functiond")


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
        found = stalls()
        if not found:
            manager.alive()
        if found and not stalled:
            log.error("the watchdog gets no signs of life", **found)
        if bool(found) != stalled:
            manager.status("; ".join(f"{part}: {problem}" for part, problem in found.items()) or "serving again")
        stalled = bool(found)
        await anyio.sleep(manager.watchdog / 2)
