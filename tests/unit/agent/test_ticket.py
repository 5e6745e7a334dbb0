"""Supervisor that gets its token at standard input, and runs one agent only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.agent import supervisor
from engine.agent.link import Configuration
from engine.agent.supervisor import Supervisor
from engine.executors.nodes.messages import Leave
from tests.support.agents import SECRET, EngineEnd, engine_end, node
from tests.support.executing import marker

SOURCE = """
import subprocess

def handler(event, context):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
"""


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EngineEnd]:
    async with engine_end(tmp_path) as engine:
        (tmp_path / "node.token").unlink()
        yield engine


def ticket(engine: EngineEnd) -> str:
    return f"node.{SECRET}.{engine.fingerprint}\n"


@pytest.mark.parametrize("cause", ["connection", "lease", "leave"])
async def test_one_agent_runs(engine: EngineEnd, cause: str) -> None:
    for number in (1, 2):  # with the same data directory
        async with node(engine, ticket=ticket(engine)) as run:
            end = await engine.joined()
            remote = await end.start(SOURCE)
            await remote.invoke()
            assert SECRET not in run.visible()
            if cause == "connection":
                end.connection.abort("the network fails")
            elif cause == "leave":
                end.send(Leave("nothing runs here"))
            else:
                await end.shorten(0.5)
                end.silent = True
            status = await run.process.wait()

            assert (status, remote.pids()) == (0, [])
            assert (len(engine.connections), end.hello.previous) == (number, "")


async def test_a_refusal_is_told(engine: EngineEnd) -> None:
    engine.refusal = "the ticket is too old"
    async with node(engine, ticket=ticket(engine)) as run:
        assert await run.process.wait() == 0
        assert "refused: the ticket is too old" in run.log


async def test_an_engine_that_cannot_be_reached_is_told(engine: EngineEnd) -> None:
    engine.port = 1
    async with node(engine, ticket=ticket(engine)) as run:
        assert await run.process.wait() == 0
        assert "cannot connect" in run.log


async def test_a_ticket_must_be_a_token(engine: EngineEnd) -> None:
    async with node(engine, ticket="node.secret\n") as run:
        assert await run.process.wait() == 1
        assert "is no token" in run.log


async def test_a_data_directory_in_use_is_refused(engine: EngineEnd) -> None:
    async with node(engine, ticket=ticket(engine)) as first:
        await engine.joined()
        async with node(engine, ticket=ticket(engine)) as second:
            assert await second.process.wait() == 1
            assert f"is in use by process {first.process.pid}" in second.log


@pytest.mark.parametrize("stuck", [[], [1]])
def test_processes_that_cannot_be_killed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: list[int]
) -> None:
    monkeypatch.setattr(supervisor, "kill_orphans", lambda marker, tmp: stuck)
    configuration = Configuration(
        host="localhost", port=1, data_dir=str(tmp_path), marker=marker(tmp_path), cpus=1.0, memory=1, cache=1
    )

    assert Supervisor(configuration, lambda: ("", ""), ["/nowhere/unshare"], once=True).run() is not bool(stuck)
