"""Shared instances while requests fail, are cancelled and killed at random. No answer or log line is misplaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from engine.executors.pool import Pool
from engine.logs.lines import plain
from engine.model import Code, Function
from tests.support.executing import function, invocation, pool
from tests.support.triggering import until

SOURCE = """
import asyncio, os, subprocess


async def mixed(event, context):
    number = event["number"]
    print("begin", number)
    await asyncio.sleep(event["seconds"])
    if number % 17 == 0:
        subprocess.run(["echo", "raw"])
    if number % 23 == 0:
        os._exit(3)
    if number % 11 == 0:
        raise ValueError(number)
    print("end", number)
    return number
"""
REQUESTS, AT_ONCE = 600, 12
ALLOWED = {Code.OK, Code.USER_EXCEPTION, Code.CANCELLED, Code.ENGINE, Code.TIMEOUT, Code.INIT_FAILED}


class Storm:
    def __init__(self, opened: Pool, asked: Function, seed: int) -> None:
        self.pool, self.asked, self.random = opened, asked, Random(seed)
        self.numbers = iter(range(1, REQUESTS + 1))
        self.live: list[int] = []
        self.codes: Counter[int] = Counter()

    async def requests(self) -> None:
        for number in self.numbers:
            seconds = 5 if number % 101 == 0 else self.random.choice([0, 0.005, 0.02])
            one = invocation(json.dumps({"number": number, "seconds": seconds}))
            self.live.append(one.key)
            outcome = await self.pool.execute(self.asked, one)
            self.live.remove(one.key)
            self.codes[outcome.code] += 1
            if outcome.ok:
                said = plain(outcome.log).decode().splitlines()
                assert (int(outcome.result), said) == (number, [f"begin {number}", f"end {number}"])

    async def trouble(self) -> None:
        while True:
            await asyncio.sleep(0.03)
            match self.random.randrange(12):
                case 0 | 1 | 2 if self.live:
                    self.pool.cancel(self.random.choice(self.live))
                case 3 if pids := [instance.pid for instance in self.pool.allocator.alive if instance.pid]:
                    os.kill(self.random.choice(pids), signal.SIGKILL)
                case 4:
                    await self.pool.retire(1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_in_a_storm_every_request_has_its_own_answer_and_lines(tmp_path: Path, seed: int) -> None:
    async with pool(tmp_path, SOURCE, memory=1024) as opened:
        storm = Storm(opened, function("mixed", concurrent_num=4, timeout=1), seed)
        troubling = asyncio.ensure_future(storm.trouble())
        await asyncio.gather(*(storm.requests() for _ in range(AT_ONCE)))
        troubling.cancel()
        await asyncio.wait([troubling])
        await until(lambda: not opened.statistics().starting)  # other instances may have served what caused a start
        seen = opened.statistics()

        assert storm.codes.total() == REQUESTS
        assert set(storm.codes) <= ALLOWED
        assert (seen.busy, seen.starting, seen.memory, opened._running) == (0, 0, 128 * seen.idle, {})
