"""Placement on a Ray cluster that cannot be reached, tickets, and the placement process's end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.executors.nodes.certificate import load_credentials
from engine.executors.nodes.options import GpuType
from engine.executors.nodes.ray_link import RayLink
from tests.support.executing import function, invocation
from tests.support.nodes import node_pool
from tests.support.ports import free_port
from tests.support.waiting import until

CONNECTED = """#!/bin/sh
echo '{"ready": {"ray": "2.60.0"}}'
exec sleep 100
"""


def test_a_ticket_is_good_for_one_connection_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    credentials = load_credentials(tmp_path, ["big"], "", "")
    first, second = credentials.make_ticket("ray-1"), credentials.make_ticket("ray-1")
    shown = second.rpartition(".")[0]  # as agents do, without the fingerprint

    assert second.endswith(f".{credentials.fingerprint}")
    assert credentials.name_of(first.rpartition(".")[0]) is None
    assert credentials.name_of(f"ray-1.{'0' * 64}") is None
    assert [credentials.name_of(shown), credentials.name_of(shown)] == ["ray-1", None]
    token = (tmp_path / "big.token").read_text().strip().rpartition(".")[0]
    assert [credentials.name_of(token), credentials.name_of(token)] == ["big", "big"]


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        (
            "/no/python",
            "the placement process failed: [Errno 2] No such file or directory: '/no/python'; see",
        ),
        (sys.executable, "cannot connect to Ray's head at 127.0.0.1:"),
        ("/bin/false", "the placement process has ended with status 1"),
    ],
)
async def test_this_machine_is_used_while_ray_is_away_and_the_problem_is_told(
    tmp_path: Path, python: str, problem: str
) -> None:
    ray = f"127.0.0.1:{free_port()}"
    async with node_pool(tmp_path, local="fallback", ray=ray, python=python) as opened:
        code = await opened.package({"index.py": "def handler(event, context):\n    return event\n"})

        outcome = await opened.pool.execute(function("handler", code=code), invocation())

        assert outcome.code == 0
        assert opened.pool.nodes is not None
        await until(lambda: problem in opened.launcher.report().problem)
        assert f"nothing is placed on nodes: {problem}" in opened.launcher.report().summary


async def test_a_gpu_that_the_settings_do_not_offer_fails_the_attempt(tmp_path: Path) -> None:
    gpus = {"t4": GpuType(memory=16384)}
    async with node_pool(tmp_path, ray="127.0.0.1:1", python="/no/python", gpus=gpus) as opened:
        code = await opened.package({"index.py": "def handler(event, context):\n    return event\n"})
        for details in ({"gpu_type": "v100"}, {"gpu_type": "t4", "gpu_memory": 16385}, {"gpu_memory": 1024}):
            outcome = await opened.pool.execute(function("handler", code=code, details=details), invocation())

            assert "executor.nodes.gpus offers t4 with at most 16384 MB" in outcome.message


async def test_messages_to_a_placement_process_that_was_killed_are_dropped(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(CONNECTED)
    program.chmod(0o755)
    seen: list[dict[str, Any]] = []
    link = RayLink(str(program), "127.0.0.1:1", seen.append)
    running = asyncio.create_task(link.run())
    await until(lambda: link.connected)
    link.send(release=1)
    assert link._process is not None
    os.kill(link._process.pid, signal.SIGKILL)
    while link.connected:
        link.send(release=2)
        await asyncio.sleep(0)
    link.send(release=3)

    assert seen == [{"ready": {"ray": "2.60.0"}}, {"exited": link.problem}]
    assert link.problem == "the placement process has ended with status -9"
    running.cancel()
    await link.close()
