"""Timer for the next token of a rate, on the event loop of a running engine."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.scheduling.scheduler import TokenTimer


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is the loop in production there")
def test_a_token_that_is_due_at_once_sets_the_timer_again_and_again() -> None:
    import uvloop

    async def renewed_times() -> int:
        loop, left, done = asyncio.get_running_loop(), [3, 2, 1], asyncio.Event()
        queue: Any = SimpleNamespace(next_token=lambda: loop.time() if left else None, renew=lambda now: left.pop())

        def renewed() -> None:
            timer.set()  # as a dispatch does, before the timer sets itself
            if not left:
                done.set()

        timer = TokenTimer(queue, renewed)
        timer.set()
        timer.set()
        await asyncio.wait_for(done.wait(), 30)
        return 3 - len(left)

    assert uvloop.run(renewed_times()) == 3
