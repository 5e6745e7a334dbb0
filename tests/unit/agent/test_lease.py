"""Lease of a node, which nothing outlives, and supervisors that get their token at standard input."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engine.agent import supervisor
from engine.agent.link import Configuration
from engine.agent.supervisor import Supervisor
from engine.executors.nodes.connection import Connection
from engine.executors.nodes.messages import Leave, send
from tests.support.agents import SECRET, AgentEnd, EngineEnd, Remote, engine_end, node, write_token
from tests.support.executing import is_alive, marker, stop
from tests.support.waiting import until

#: Starts a process that leaves the session and the process group of its instance.
SOURCE = """
import subprocess

def handler(event, context):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
"""

#: Begin of a command that root runs as if it were not.
ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


async def start(end: AgentEnd) -> Remote:
    remote = await end.start(SOURCE)
    await remote.invoke()
    await until(lambda: len(remote.pids()) == 2)
    return remote


async def test_nothing_outlives_the_lease(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        end = await engine.joined()
        assert {resource.prlimit(pid, resource.RLIMIT_CORE) for pid in run.processes()} == {(0, 0)}
        remote = await start(end)
        await end.shorten(0.5)
        end.silent = True
        next_end = await engine.joined()

        assert not remote.pids()
        assert next_end.hello.previous == "session-1"
        assert "no sign of the engine" in run.log


async def test_the_end_of_the_lease_needs_no_supervisor(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        end = await engine.joined()
        remote = await start(end)
        stop(run.process.pid)
        await end.shorten(0.5)
        end.silent = True
        await until(lambda: not remote.pids())
        run.process.send_signal(signal.SIGCONT)

        assert (await engine.joined()).hello.previous == "session-1"


async def test_the_end_of_the_lease_needs_no_reader_of_the_log(tmp_path: Path) -> None:
    os.mkfifo(log := tmp_path / "log")
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(log, os.O_WRONLY | os.O_NONBLOCK)
    async with engine_end(tmp_path) as engine, node(engine, log=log):
        end = await engine.joined()
        remote = await start(end)
        with suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n")
        await end.shorten(0.5)
        end.silent = True
        await until(lambda: not remote.pids())
        os.close(filler)
        os.close(reader)


async def test_an_agent_exits_if_its_supervisor_reads_nothing() -> None:
    script = """
import socket
from engine.agent.link import Configuration, Report
from engine.agent.main import Agent

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.setblocking(False)
try:
    while True:
        ours.send(b"{}")
except BlockingIOError:
    configuration = Configuration(host="localhost", port=1, data_dir="agent", cpus=1, memory=1, cache=1)
    Agent(configuration, ours)._exit("the connection ended", Report())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)

    assert await process.wait() == 0


async def test_nothing_outlives_an_agent(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        end = await engine.joined()
        for cause in ("stopped", "killed", "connection"):
            remote, agent = await start(end), run.agent()
            if cause == "stopped":
                await end.shorten(2)  # not over before the signal
            if cause == "connection":
                end.connection.abort("the network fails")
            else:
                os.kill(agent, signal.SIGSTOP if cause == "stopped" else signal.SIGKILL)
            end = await engine.joined()

            assert not remote.pids()
            assert not is_alive(agent)
            assert end.hello.previous == f"session-{len(engine.connections) - 1}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_its_supervisor(tmp_path: Path, number: int) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        remote = await start(await engine.joined())
        run.process.send_signal(number)
        exited = await run.process.wait()
        left = remote.pids()
        await until(lambda: not remote.pids())

        assert exited == (0 if number == signal.SIGTERM else -number)
        assert number == signal.SIGKILL or not left


async def test_a_session_is_told_until_an_agent_is_welcome(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        end = await engine.joined()
        engine.refusal = "another agent has this token"
        end.connection.abort("the network fails")
        refused = [(await engine.connected()).hello.previous for _ in range(3)]
        engine.refusal = ""
        told = (await engine.joined()).hello.previous
        engine.connections[-1].connection.abort("the network fails")
        last = (await engine.joined()).hello.previous

        assert refused[1:] == ["session-1", "session-1"]
        assert (told, last) == ("session-1", f"session-{len(engine.connections) - 1}")
        assert "refused: another agent has this token" in run.log


async def test_an_engine_with_another_certificate_gets_and_orders_nothing(tmp_path: Path) -> None:
    class Eager(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if not mended:
                send(self, Leave("nobody wants you"))

    mended = False
    async with engine_end(tmp_path) as engine:
        engine.connect = Eager
        write_token(tmp_path / "node.token", "0" * 64)
        async with node(engine) as run:
            await until(lambda: run.log.count("its certificate is not the one that the token file names") > 1)
            silent = not [end for end in engine.connections if end.messages]
            mended = True
            write_token(tmp_path / "node.token", engine.fingerprint)

            assert (await engine.joined()).hello.previous == ""
            assert silent


async def test_a_second_supervisor_on_one_folder_is_refused(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as first:
        await engine.joined()
        async with node(engine) as second:
            assert await second.process.wait() == 1
            assert f"is in use by process {first.process.pid}" in second.log


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [(0o644, "", "others have access"), (0o600, "nothing", "is no token file"), (0o600, None, "cannot read")],
)
async def test_a_token_file_must_be_usable(tmp_path: Path, mode: int, text: str | None, message: str) -> None:
    async with engine_end(tmp_path) as engine:
        file = tmp_path / "node.token"
        file.chmod(mode)
        if text is None:
            file.unlink()
        elif text:
            file.write_text(text)
        async with node(engine) as run:
            assert await run.process.wait() != 0
            assert message in run.log


async def test_the_marker_is_enough_without_namespaces(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine, path="/nowhere") as run:
        end = await engine.joined()
        remote, agent = await end.start(SOURCE.replace('"sleep"', '"/bin/sleep"')), run.agent()
        await remote.invoke()
        await end.shorten(2)  # not over before the signal
        os.kill(agent, signal.SIGSTOP)
        await until(lambda: not remote.pids())

        assert end.joined.kills == "marker in the environment"
        assert (await engine.joined()).hello.previous == "session-1"


def _users_have_namespaces() -> bool:
    nested = (*ORDINARY, "unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "true")
    return shutil.which("unshare") is not None and subprocess.run(nested, capture_output=True).returncode == 0


@pytest.mark.skipif(not _users_have_namespaces(), reason="this machine gives no network namespaces to users")
@pytest.mark.parametrize("cause", ["agent", "supervisor"])
async def test_an_ordinary_user_has_a_namespace(tmp_path: Path, cause: str) -> None:
    async with engine_end(tmp_path) as engine, node(engine, prefix=ORDINARY) as run:
        end = await engine.joined()
        remote = await start(end)
        os.kill(run.agent() if cause == "agent" else run.process.pid, signal.SIGKILL)
        await until(lambda: not remote.pids())

        assert end.joined.kills == "pid namespace"


def test_an_agent_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    configuration = Configuration(host="localhost", port=1, data_dir=str(tmp_path), cpus=1.0, memory=1, cache=1)
    supervisor = Supervisor(configuration, lambda: ("", ""), ["/nowhere/unshare"])
    with capture_logs() as logs:
        supervisor._run_agent()
        supervisor._run_agent()

    assert [entry["event"] for entry in logs] == ["no agent started"] * 2


async def test_an_address_without_tls_is_told(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with engine_end(tmp_path) as engine:
        engine.port = server.sockets[0].getsockname()[1]
        async with node(engine) as run:
            await until(lambda: "this is not the address of executor.nodes.listen" in run.log)
    server.close()


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
