"""Agent of a node: instances and connections of functions, with an engine's end of its connection in the test."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.executors.nodes import connection as wire
from engine.executors.nodes.messages import Kill, Leave, Prepare, Prepared, Start, StreamRead, Unfit, send
from engine.executors.nodes.streams import WINDOW
from engine.runtimes.protocol import Answer, Logged
from tests.support.agents import SECRET, AgentEnd, Node, Remote, engine_end, node
from tests.support.executing import function
from tests.support.programs import program
from tests.support.waiting import in_own_task, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOURCE = """
import os

def handler(event, context):
    os.write(1, b"raw, before the answer")
    print("said")
    return {"token": os.environ.get("FUNCTIOND_TOKEN"), **event}

def leave(event, context):
    os.system("sleep 100 & exit")
    os._exit(7)

def flood(event, context):
    while True:
        os.write(1, b"y" * 60000 + b"\\n") if event["raw"] else print("y" * 60000)

def eat(event, context):
    for _ in range(3):
        if not os.fork():
            eaten = bytearray(60 << 20)
            os.read(os.pipe()[0], 1)
    os.read(os.pipe()[0], 1)

def secrets(event, context):
    files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    seen = [os.readlink(file) for file in files if os.path.lexists(file)]
    readable = {path: os.path.exists(path) for path in event["paths"]}
    return {"environment": dict(os.environ), "files": seen, "readable": readable}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def joined(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[AgentEnd, Node]]:
    """Yield the engine's end of an agent that all tests of this module use. A test may answer no pings for a while."""
    async with (
        in_own_task(engine_end(tmp_path_factory.mktemp("node"), lease=60.0, api_ports=[8080])) as engine,
        in_own_task(node(engine, "--cpus", "1.5", "--memory", "512")) as run,
    ):
        yield await engine.joined(), run


async def test_a_function_runs_on_a_node(joined: tuple[AgentEnd, Node]) -> None:
    end, _ = joined
    remote = await end.start(SOURCE, token="secret of the instance")
    result = json.loads(await remote.invoke(b'{"a": 1}'))
    pids = remote.pids()
    remote.kill()
    gone = await remote.gone()

    assert result == {"a": 1, "token": "secret of the instance"}
    assert remote.seen.index((wire.STDOUT, b"raw, before the answer")) < len(remote.seen) - 1
    assert isinstance(remote.seen[-1], Answer)
    assert [seen.text for seen in remote.seen if isinstance(seen, Logged)] == [b"said\n"]
    assert pids
    assert remote.pids() == []
    assert (gone.status, gone.out_of_memory, gone.problem) == (-9, False, None)
    assert gone.received == remote.sent


async def test_an_agent_tells_what_its_machine_has(joined: tuple[AgentEnd, Node]) -> None:
    end, _ = joined

    assert (end.hello.cpus, end.hello.memory, end.hello.previous) == (1.5, 512, "")
    assert end.hello.token == f"node.{SECRET}"
    assert end.joined.kills == "pid namespace"
    assert {"isolation", "network"} <= end.joined.walls.keys()


@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").exists(), reason="GPUs of this machine have other names")
@pytest.mark.parametrize("isolation", ["process", "bubblewrap"])
async def test_instances_of_one_function_have_different_gpus(tmp_path: Path, isolation: str) -> None:
    program("bwrap")
    async with engine_end(tmp_path, sandbox={"isolation": isolation}) as engine, node(engine):
        end = await engine.joined()
        asked = function("secrets", code=engine.add(SOURCE), user_data={"CUDA_VISIBLE_DEVICES": "7"})

        seen = []
        for gpus in (("0",), ("1", "2"), ("0",), ()):
            remote = await end.prepare(asked, *gpus)
            await remote.start()
            environment = json.loads(await remote.invoke(b'{"paths": []}'))["environment"]
            seen.append(environment["CUDA_VISIBLE_DEVICES"])
        refused = await end.message(Prepared, (await end.prepare(asked, "MIG-1")).number)

        assert seen == ["0", "1,2", "0", "7"]
        assert refused.problem is not None
        assert isinstance(refused.problem.error(), OSError)
        assert "MIG is not supported" in refused.problem.text


async def test_the_exit_of_an_instance_is_told(joined: tuple[AgentEnd, Node]) -> None:
    end, _ = joined
    left = await end.start(SOURCE, "leave")
    left.call()

    assert (await left.gone()).status == 7
    await until(lambda: not left.pids())


async def test_an_instance_is_killed_before_its_start(joined: tuple[AgentEnd, Node]) -> None:
    end, _ = joined
    never = await end.prepare(function("handler", code=end.engine.add(SOURCE)))
    never.kill()
    end.send(Prepare(number=100, function=function("handler", code=end.engine.add(SOURCE)), memory=128))
    end.send(Kill(100))
    end.send(Kill(102))  # an instance whose end is on the way

    assert (await never.gone()).status is None
    await end.until(lambda: [message for message in end.messages if getattr(message, "number", 0) == 100])


@pytest.mark.parametrize("raw", [True, False])
async def test_a_child_that_writes_too_fast_waits(joined: tuple[AgentEnd, Node], raw: bool) -> None:
    end, run = joined
    fast, other = await end.start(SOURCE, "flood"), await end.start(SOURCE)
    before = run.memory()
    end.pause(True)
    fast.call(json.dumps({"raw": raw}).encode())
    await run.settled(fast)
    held = run.memory() - before
    end.pause(False)
    seen = fast.bytes
    await end.until(lambda: fast.bytes > seen + (20 << 20))

    assert held < 20 << 20
    assert await other.invoke()
    fast.kill()
    await fast.gone()


async def test_functions_see_no_secret_of_the_agent(joined: tuple[AgentEnd, Node]) -> None:
    end, run = joined
    remote = await end.start(SOURCE, "secrets")
    seen = json.loads(await remote.invoke(b'{"paths": []}'))

    assert SECRET not in json.dumps(seen)
    assert SECRET not in run.visible()
    assert len([file for file in seen["files"] if file.startswith("socket:")]) == 1


async def test_the_start_of_an_instance_that_is_not_prepared_ends_the_connection(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine):
        end = await engine.joined()
        end.send(Start(number=2, instance="instance"))

        await end.lost.wait()
        assert (await engine.joined()).hello.previous == "session-1"


async def test_a_sandbox_hides_the_token_and_limits_memory(tmp_path: Path) -> None:
    program("bwrap")
    sandbox = {"isolation": "bubblewrap", "tmp_size": 512, "api_ports": {"1": 2}}
    async with engine_end(tmp_path, sandbox=sandbox) as engine, node(engine) as run:
        end = await engine.joined()
        remote = await end.start(SOURCE, "secrets")
        paths = [str(tmp_path / name) for name in ("node.token", "agent", "agent/packages")]
        seen = json.loads(await remote.invoke(json.dumps({"paths": paths}).encode()))
        eating = await end.start(SOURCE, "eat", memory_size=128)
        eating.call()
        gone = await eating.gone()
        end.send(Leave("the settings name it no more"))

        assert end.joined.walls["isolation"].startswith("bubblewrap")
        assert gone.out_of_memory
        assert seen["readable"] == dict.fromkeys(paths, False)
        assert SECRET not in json.dumps(seen)
        assert await run.process.wait() == 0
        assert "sent away: the settings name it no more" in run.log


async def test_a_missing_interpreter_is_told(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine, path="/nowhere"):
        end = await engine.joined()
        remote = await end.prepare(function("handler", code=engine.add(SOURCE), runtime="Node.js18.15"))
        prepared = await end.message(Prepared, remote.number)

        assert prepared.problem is not None
        assert prepared.problem.field == "runtime"
        assert end.joined.lacks.keys() == {"node"}


async def test_a_machine_without_the_sandbox_asked_for_is_unfit(tmp_path: Path) -> None:
    sandbox = {"isolation": "bubblewrap"}
    async with engine_end(tmp_path, sandbox=sandbox) as engine, node(engine, path="/nowhere"):
        end = await engine.connected()
        unfit = await end.until(lambda: [message for message in end.messages if isinstance(message, Unfit)])
        await end.lost.wait()

        assert "executor.isolation is bubblewrap" in unfit[0].reason


CONNECTING = """
import os, socket
from urllib.parse import urlsplit

def handler(event, context):
    url = urlsplit(os.environ["FUNCTIOND_URL"])
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(b"x" * event["send"])
        if event["end"]:
            connection.shutdown(socket.SHUT_WR)
        if "gate" in event:
            open(event["gate"]).read()
        read = 0
        while data := connection.recv(65536):
            read += len(data)
        return str(read)
"""


@pytest.fixture
def end(joined: tuple[AgentEnd, Node]) -> AgentEnd:
    return joined[0]


def stream_of(end: AgentEnd) -> int:
    """Return the number of the stream that the agent opened last."""
    return max(end.streams, default=0)


def read(end: AgentEnd, number: int) -> int:
    return sum(m.size for m in end.messages if isinstance(m, StreamRead) and m.number == number)


async def begin(end: AgentEnd, remote: Remote, event: bytes) -> tuple[int, int]:
    """Call the function. Return the ticket, and the number of the stream that it opens."""
    before = stream_of(end)
    ticket = remote.call(event)
    await end.until(lambda: stream_of(end) > before)
    return ticket, stream_of(end)


async def test_a_connection_of_a_function_is_forwarded(end: AgentEnd) -> None:
    remote = await end.start(CONNECTING)
    ticket, number = await begin(end, remote, b'{"send": 7, "end": true}')
    await end.until(lambda: number in end.ended)
    end.connection.send(wire.STREAM, number, b"y" * 5)
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == b"5"
    assert end.streams[number] == b"x" * 7
    assert number % 2
    await end.until(lambda: read(end, number) == 5)


async def test_the_agent_waits_for_acknowledgements(end: AgentEnd) -> None:
    remote = await end.start(CONNECTING)
    ticket, number = await begin(end, remote, b'{"send": 9000000, "end": true}')
    seen = list[int]()
    while number not in end.ended:
        await end.until(lambda: number in end.ended or len(end.streams[number]) - sum(seen) > WINDOW // 2)
        seen.append(len(end.streams[number]) - sum(seen))
        send(end.connection, StreamRead(number, seen[-1]))
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == b"0"
    assert len(end.streams[number]) == sum(seen) == 9_000_000
    assert max(seen) <= WINDOW


async def test_the_agent_acknowledges_what_the_function_reads(end: AgentEnd, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    remote = await end.start(CONNECTING)
    os.mkfifo(gate)
    event = b'{"send": 1, "end": false, "gate": "%s"}' % str(gate).encode()
    ticket, number = await begin(end, remote, event)
    for _ in range(200):
        end.connection.send(wire.STREAM, number, b"y" * wire.PIECE)
    other = await end.start("def handler(event, context): return 1")
    await other.invoke()
    held = read(end, number)
    gate.open("w").close()
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == str(200 * wire.PIECE).encode()
    assert held < 200 * wire.PIECE
    await end.until(lambda: read(end, number) == 200 * wire.PIECE)


async def test_a_connection_that_a_function_drops_ends(end: AgentEnd) -> None:
    remote = await end.start(CONNECTING)
    _, number = await begin(end, remote, b'{"send": 1, "end": false}')
    remote.kill()
    await end.until(lambda: number in end.ended)
    for _ in range(4):
        end.connection.send(wire.STREAM, number, b"y" * wire.PIECE)

    await end.until(lambda: read(end, number) == 4 * wire.PIECE)


async def test_functions_have_no_access_unless_the_engine_gives_it(tmp_path: Path) -> None:
    source = "import os\ndef handler(event, context): return [name for name in os.environ if 'FUNCTIOND_U' in name]"
    async with engine_end(tmp_path) as engine, node(engine):
        remote = await (await engine.joined()).start(source)

        assert await remote.invoke() == b"[]"
