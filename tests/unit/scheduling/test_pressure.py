from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import anyio
import pytest

from engine.scheduling import pressure
from engine.scheduling.pressure import REASON, watch_pressure
from engine.scheduling.scheduler import Scheduler


class Gate:
    def __init__(self) -> None:
        self.held, self.open = asyncio.Event(), asyncio.Event()
        self.reasons: list[str] = []

    def hold(self, reason: str) -> None:
        self.reasons.append(reason)
        self.held.set()

    def resume(self, reason: str) -> None:
        self.open.set()


@asynccontextmanager
async def watching() -> AsyncIterator[Gate]:
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        await tasks.start(watch_pressure, cast("Scheduler", gate))
        yield gate
        tasks.cancel_scope.cancel()


@contextmanager
def burning(processes: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@pytest.mark.skipif(not Path("/proc/pressure/cpu").exists(), reason="the kernel has no pressure-stall information")
async def test_the_gate_is_held_while_the_processors_are_busy() -> None:
    async with asyncio.timeout(90), watching() as gate:
        with burning(3 * (os.cpu_count() or 1)):
            await gate.held.wait()

        assert set(gate.reasons) == {REASON}


async def test_the_gate_opens_again_when_there_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "QUIET", 0.01)
    gate = Gate()
    kernel, teller = socket.socketpair()
    with kernel, teller, select.epoll() as news:
        news.register(kernel, select.EPOLLIN)
        async with asyncio.timeout(60), anyio.create_task_group() as tasks:
            await tasks.start(pressure.follow, news, cast("Scheduler", gate))
            for _ in range(2):
                gate.held, gate.open = asyncio.Event(), asyncio.Event()
                teller.send(b"busy")
                await gate.held.wait()
                assert not gate.open.is_set()
                kernel.recv(4)
                await gate.open.wait()
            tasks.cancel_scope.cancel()

    assert gate.reasons == [REASON, REASON]
