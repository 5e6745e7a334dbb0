"""Runs on a node that are watched, interrupted and dismissed. The contracts of executors run on nodes, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.executors.local.choice import IsolationOptions
from engine.model import Code, CodePackage, Outcome
from tests.support.executing import function, invocation, output
from tests.support.nodes import NodePool, agent, node_pool
from tests.support.waiting import until

SOURCE = """
import os, time


def stepping(event, context):
    context.report_progress(0.5, "half")
    print("began", flush=True)
    while not os.path.exists(event["gate"]):
        time.sleep(0.01)
    return "done"


def tidy(event, context):
    try:
        open(event["gate"], "w").close()
        time.sleep(600)
    finally:
        print("cleaned up")


def stopped():
    open(os.environ["STOPPED"], "w").close()
"""


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[NodePool]:
    options = IsolationOptions(isolation="process")
    async with node_pool(tmp_path, "n1", sandbox=options, term_grace=10.0) as made, agent(made, "n1"):
        yield made


@pytest.fixture
async def code(opened: NodePool) -> CodePackage:
    return await opened.package({"index.py": SOURCE})


def begin(opened: NodePool, handler: str, gate: Path, **fields: Any) -> tuple[asyncio.Future[Outcome], int]:
    asked = invocation(json.dumps({"gate": str(gate)}))
    return asyncio.ensure_future(opened.pool.execute(function(handler, **fields), asked)), asked.key


async def test_progress_and_lines_of_a_run_are_seen_while_it_runs(
    opened: NodePool, code: CodePackage, tmp_path: Path
) -> None:
    running, key = begin(opened, "stepping", tmp_path / "gate", code=code)
    await until(lambda: b"began" in (opened.pool.running_log(key) or b""))
    assert opened.pool.progress(key) == (0.5, "half")
    (tmp_path / "gate").touch()

    outcome = await running

    assert (outcome.result, outcome.progress, outcome.note, outcome.node) == (b"done", 0.5, "half", "n1")


@pytest.mark.parametrize("seconds", [1, 600], ids=["too long", "cancelled"])
async def test_a_handler_that_must_end_may_clean_up(
    opened: NodePool, code: CodePackage, tmp_path: Path, seconds: int
) -> None:
    running, key = begin(opened, "tidy", tmp_path / "gate", code=code, timeout=seconds)
    await until((tmp_path / "gate").exists)
    if seconds > 1:
        opened.pool.cancel(key)

    outcome = await running

    assert outcome.code == (Code.TIMEOUT if seconds == 1 else Code.CANCELLED)
    assert "cleaned up" in output(outcome)


async def test_an_instance_that_is_dismissed_runs_its_pre_stop_handler(
    opened: NodePool, code: CodePackage, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"pre_stop_handler": "index.stopped", "user_data": {"STOPPED": str(tmp_path / "stopped")}}
    (tmp_path / "gate").touch()
    running, _ = begin(opened, "stepping", tmp_path / "gate", code=code, **fields)
    await running

    await opened.pool.retire(1)

    assert (tmp_path / "stopped").exists()
    await until(lambda: opened.pool.nodes.report().nodes[0].memory_used == 0)  # type: ignore[union-attr]
