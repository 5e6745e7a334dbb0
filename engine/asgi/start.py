"""Start of the task of a request, without a further turn of the event loop where Python allows it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 12):

    def start_task(loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task at once: a request then reaches the engine without a further turn of the loop."""
        return asyncio.Task(run, loop=loop, eager_start=True)

else:

    def start_task(loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return loop.create_task(run)
