"""Drain of a node whose instances are starting."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.executing import function
from tests.support.nodes import agent, node_pool
from tests.support.waiting import until

SOURCE = """
import os, time

def wait(context):
    while not os.path.exists("{gate}"):
        time.sleep(0.02)

def handler(event, context):
    return "done"
"""


async def test_a_drained_node_keeps_no_instance_that_was_starting(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with node_pool(tmp_path, "n1") as opened, agent(opened, "n1", "--cpus", "8") as supervisor:
        code = await opened.package({"index.py": SOURCE.format(gate=gate)})
        loading = function("handler", code=code, function_id=1, initializer_handler="index.wait")
        prepared = function("handler", code=code, function_id=2)
        starting = asyncio.ensure_future(opened.pool.warm(loading))
        await until(lambda: opened.pool.nodes.report().nodes[0].instances)  # type: ignore[union-attr]
        preparing = asyncio.ensure_future(opened.pool.warm(prepared))
        while not opened.launcher.nodes.node("n1")._preparing:  # noqa: ASYNC110
            await asyncio.sleep(0)  # no longer: the agent's answer is to come after the drain
        opened.launcher.drain("n1")

        assert not await preparing  # waits for another node
        assert opened.state("n1") == "draining"
        gate.touch()
        assert await starting
        assert await supervisor.wait() == 0
        assert opened.state("n1") == "absent"
