"""Cache of code packages on a node."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from itertools import count
from pathlib import Path

import pytest

from engine.agent.packages import Packages
from engine.executors.nodes import connection as wire
from engine.executors.nodes.messages import Fetch, FromAgent, NoPackage, Prepare, Prepared, send
from engine.model import CodePackage, Dependency
from tests.support.agents import AgentEnd, EngineEnd, engine_end, node
from tests.support.executing import function
from tests.support.waiting import until

CONCURRENCY = 4  #: packages that an agent fetches at the same time
SOURCE = "def handler(event, context):\n    return 'a result'\n"


def cached(folder: Path) -> set[str]:
    return {entry.name for entry in (folder / "agent" / "packages").iterdir()}


async def test_a_package_is_fetched_once(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine) as run:
        end = await engine.joined()
        package = engine.add(SOURCE)
        asked = function("handler", code=package)
        for number in (100, 102):
            end.send(Prepare(number=number, function=asked, memory=128))
        prepared = [await end.message(Prepared, number) for number in (100, 102)]
        result = await (await end.start(SOURCE)).invoke()
        while run.process.returncode is None:
            await run.end()
        async with node(engine):
            await (await engine.joined()).start(SOURCE)

        assert [message.problem for message in prepared] == [None, None]
        assert result == b"a result"
        assert engine.fetched == [package.sha256]
        assert cached(tmp_path) == {package.sha256}


async def test_inline_source_and_dependencies_are_packages(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine):
        end = await engine.joined()
        name = hashlib.sha256(b"inline\0index.py\0" + SOURCE.encode()).hexdigest()
        engine.packages[name] = SOURCE.encode()
        code = CodePackage(sha256=name, digest="", size=len(SOURCE), kind="inline", filename="index.py")
        library = engine.add("def other(event, context):\n    return 'of the dependency'\n")
        dependency = Dependency(
            id="1", dep_id="1", project="p", name="library", version=1, runtime="Python3.10", code=library, etag=""
        )
        remote = await end.prepare(function("handler", code=code))
        await remote.start()
        moved = await end.prepare(function("other.handler", code=code, dependencies=(dependency,)))

        assert await remote.invoke() == b"a result"
        assert (await end.message(Prepared, moved.number)).problem is None
        assert set(engine.fetched) == {name, library.sha256}


async def test_a_package_with_other_bytes_is_refused(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine):
        end = await engine.joined()
        package, other = engine.add(SOURCE), engine.add(SOURCE + "# changed\n")
        engine.packages[package.sha256] = engine.packages[other.sha256]
        refused = await end.prepare(function("handler", code=package))
        prepared = await end.message(Prepared, refused.number)
        engine.packages[package.sha256] = b"no zip"
        damaged = await end.prepare(function("handler", code=package))

        assert prepared.problem is not None
        assert prepared.problem.text.endswith("was not fetched: its contents have another hash")
        assert (await end.message(Prepared, damaged.number)).problem is not None
        assert cached(tmp_path) == set()
        assert await (await end.start(SOURCE + "# changed\n")).invoke() == b"a result"


async def test_many_packages_are_fetched_in_turns(tmp_path: Path) -> None:
    class Holding(EngineEnd):
        def handle(self, end: AgentEnd, message: FromAgent) -> None:
            if isinstance(message, Fetch):
                held.append(message)
            else:
                super().handle(end, message)

    held: list[Fetch] = []
    async with engine_end(tmp_path, kind=Holding) as engine, node(engine):
        end = await engine.joined()
        for number in range(100, 140, 2):
            name = hashlib.sha256(b"inline\0index.py\0" + f"{SOURCE}# {number}".encode()).hexdigest()
            engine.packages[name] = f"{SOURCE}# {number}".encode()
            code = CodePackage(sha256=name, digest="", size=1, kind="inline", filename="index.py")
            end.send(Prepare(number=number, function=function("handler", code=code), memory=128))
        most = 0
        for left in range(20, 0, -1):
            await end.until(lambda left=left: len(held) >= min(left, CONCURRENCY))  # type: ignore[misc]
            most = max(most, len(held))
            EngineEnd.handle(engine, end, held.pop())

        assert [(await end.message(Prepared, number)).problem for number in range(100, 140, 2)] == [None] * 20
        assert most == CONCURRENCY


async def test_an_interrupted_package_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(EngineEnd):
        def handle(self, end: AgentEnd, message: FromAgent) -> None:
            if isinstance(message, Fetch):
                end.connection.send(wire.PACKAGE, message.number, self.packages[message.sha256][:20])
                if not self.fetched:
                    send(end.connection, NoPackage(message.number, "the disk of the engine fails"))
                self.fetched.append(message.sha256)
                arrived.set()
            else:
                super().handle(end, message)

    arrived = asyncio.Event()
    async with engine_end(tmp_path, kind=Interrupting) as engine, node(engine) as run:
        end = await engine.joined()
        package = engine.add(SOURCE)
        failed = await end.prepare(function("handler", code=package))
        prepared = await end.message(Prepared, failed.number)
        arrived.clear()
        end.send(Prepare(number=100, function=function("handler", code=package), memory=128))
        await arrived.wait()
        left = cached(tmp_path)
        await run.end()
        async with node(engine):
            await engine.joined()

            assert prepared.problem is not None
            assert prepared.problem.text.endswith("the disk of the engine fails")
            assert len(left) == 1
            assert cached(tmp_path) == set()


async def test_packages_are_removed_once(tmp_path: Path) -> None:
    end = AgentEnd(EngineEnd(tmp_path, {}))
    packages = Packages(tmp_path / "packages", 100, end.connection, count())
    for number in range(8):
        folder = tmp_path / "packages" / f"{number:064}"
        folder.mkdir(parents=True)
        (folder / "index.py").write_text("#")
    await packages.load()
    packages._limit = 0
    await asyncio.gather(packages._shrink(), packages._shrink())

    assert not list((tmp_path / "packages").iterdir())


async def test_a_package_that_was_just_removed_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, gate = threading.Event(), threading.Event()

    def remove(folder: Path) -> None:
        removing.set()
        gate.wait(30)

    monkeypatch.setattr("engine.agent.packages.remove_tree", remove)
    engine = EngineEnd(tmp_path, {})
    packages = Packages(tmp_path / "packages", 0, AgentEnd(engine).connection, count(1, 2))
    asked = function("handler", code=engine.add(SOURCE))
    waiting = asyncio.ensure_future(packages.fetch(asked))
    await until(lambda: packages._receiving)
    waiting.cancel()  # so that nobody uses the package
    packages.received(1, engine.packages[asked.code.sha256])
    packages.received(1, b"")
    await until(removing.is_set)
    again = asyncio.ensure_future(packages.fetch(asked))
    await until(lambda: packages._receiving)

    packages.received(3, engine.packages[asked.code.sha256])
    packages.received(3, b"")
    packages.use(asked)
    gate.set()
    await again
    assert (packages.folder(asked.code) / "index.py").exists()


async def test_packages_used_least_recently_are_removed(tmp_path: Path) -> None:
    sources = [f"{SOURCE}# {number} {'x' * 1000}\n" for number in range(4)]
    async with engine_end(tmp_path) as engine, node(engine, "--cache", "2500"):
        end = await engine.joined()
        first, second = await end.start(sources[0]), await end.start(sources[1])
        second.kill()
        await second.gone()
        third = await end.start(sources[2])
        packages = [engine.add(source).sha256 for source in sources]
        two = cached(tmp_path)
        first.kill()
        await first.gone()
        await end.start(sources[0])
        third.kill()
        await third.gone()
        await end.start(sources[3])

        assert two == {packages[0], packages[2]}
        assert cached(tmp_path) == {packages[0], packages[3]}
        assert engine.fetched == packages
