"""Starts on nodes: waits for capacity, drain of a node, and an engine without nodes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from engine.executors.nodes.report import NodesReport
from tests.support.executing import function
from tests.support.nodes import agent, node_pool
from tests.support.waiting import until


async def test_a_wait_that_ends_without_capacity_is_not_counted_as_a_grant(tmp_path: Path) -> None:
    async with node_pool(tmp_path, "n1") as opened:
        code = await opened.package({"index.py": "def handler(event, context): pass"})
        asked = function("handler", code=code)
        assert not await opened.pool.warm(asked)
        (waiting,) = opened.launcher.report().waiting
        await opened.pool.retire(asked.function_id)
        await until(lambda: not opened.launcher.report().waiting)

        assert opened.launcher.statistics().grant_seconds.count == 0
        report = NodesReport(nodes=(), waiting=(waiting,))
        assert next(report.notes).startswith("1 start of 128 MB, 0.3 CPU (python) waits for ")


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


LOADED = """
import sys, engine.app.service, engine.cli.serve, plugins.timer
print(*(name for name in sys.modules if name.startswith(("engine.executors.nodes.", "engine.agent"))))
"""


def test_an_engine_without_nodes_loads_only_their_settings_and_description() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)

    assert set(loaded.stdout.split()) == {"engine.executors.nodes.options", "engine.executors.nodes.report"}
