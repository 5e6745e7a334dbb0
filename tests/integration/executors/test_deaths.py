"""Concurrent exits of many forked instances, one test for every kind of exit."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path

import pytest

from engine.executors.pool import Pool
from engine.isolation.processes import marked
from engine.model import Code
from tests.integration.executors.test_template import FORKING, own, ready, template_of
from tests.support.executing import function, invocation, marker, pool

pytestmark = pytest.mark.long

SOURCE = """
import os, subprocess, time


def handler(event, context):
    if event["with"]:
        subprocess.Popen(["setsid", "sleep", "600"])
    if event["do"] == "leave":
        os._exit(3)
    if event["do"] == "hang":
        time.sleep(600)
    return event["do"]
"""
ENDS = {"answer": Code.OK, "leave": Code.USER_EXCEPTION, "hang": Code.TIMEOUT, "cancel": Code.CANCELLED}


async def end(opened: Pool, way: str, helped: bool, max_wait: float) -> int | None:
    """Run a call that ends as ``way`` names; return its code, or None for an abandoned call."""
    given_up = way in ("cancel", "abandon")
    limit = 1 if way == "hang" else 60
    call = invocation(json.dumps({"do": "hang" if given_up else way, "with": helped}))
    running = asyncio.ensure_future(opened.execute(function("handler", timeout=limit), call))
    if given_up:
        await asyncio.wait([running], timeout=max_wait)
    if way == "cancel":
        opened.cancel(call.key)
    if way == "abandon":
        running.cancel()
        await asyncio.wait([running])
        return None
    return (await running).code


async def test_each_ends_in_its_own_way_and_nothing_is_left(tmp_path: Path) -> None:
    draw = random.Random(7)
    slots = asyncio.Semaphore(10)
    before = len(os.listdir("/proc/self/fd"))

    async def one() -> tuple[str, int | None]:
        way = draw.choice([*ENDS, "abandon"])
        async with slots:
            return way, await end(opened, way, draw.random() < 0.3, draw.random() / 20)

    async with pool(tmp_path, SOURCE, sandbox=FORKING, interpreters=own()) as opened:
        await ready(opened)
        template = template_of(opened)
        ended = await asyncio.gather(*(one() for _ in range(150)))
        last = template_of(opened)

    assert last is template  # an exit of the template would have killed its instances
    assert [(way, code) for way, code in ended if code != ENDS.get(way)] == []
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []
    assert os.listdir(tmp_path / "tmp") == []
    assert len(os.listdir("/proc/self/fd")) <= before  # descriptors of earlier tests may be closed meanwhile
