"""Starts that wait for the capacity of nodes."""

from __future__ import annotations

from pathlib import Path

from engine.executors.nodes.report import NodesReport
from tests.support.executing import function
from tests.support.nodes import node_pool
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
