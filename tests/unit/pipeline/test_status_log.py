"""Worker of the status log: entries wait while their stream takes none, and no failure of it reaches invocations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from engine.errors import DiskLow, Overloaded
from engine.logs.feed import StatusLines, WriteRows
from engine.logs.target import LogTarget
from engine.model import AsyncSettings, Request
from engine.pipeline import status_log
from tests.support.triggering import House, house, until


class Streams:
    """Store of lines about states that raises ``problem`` while there is one."""

    plugin = "streams"

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.tried = 0
        self.lines: list[dict[str, Any]] = []

    async def create(self, project: str, target: LogTarget, *, again: bool) -> None: ...

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        self.tried += 1
        if self.problem is not None:
            raise self.problem
        texts = [line.text for entry in written for line in entry.lines]
        await write("lines", {f"{self.tried:09}": json.dumps(texts).encode()})
        self.lines += map(json.loads, texts)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_log, "PAUSE", 0.001)
    monkeypatch.setattr(status_log, "RETRY_DELAY", 0.001)


@asynccontextmanager
async def logging(folder: Path) -> AsyncIterator[House]:
    """Run an engine without LTS, whose function ``hello`` has the status log enabled."""
    async with house(folder) as place:
        await place.engine.catalog.put_settings(place.urn, AsyncSettings(status_log=True))
        await place.engine.status_log.follow(1)
        yield place


async def send(place: House) -> str:
    return await place.engine.intake.accept(Request(function=place.urn, payload=b'{"k": "\\u00e9"}'))


async def test_lines_wait_until_the_streams_have_room(tmp_path: Path) -> None:
    streams = Streams()
    streams.problem = Overloaded("the log streams are full", retry_after=0)
    async with logging(tmp_path) as place:
        with place.engine.logs.status_lines_stored_by(streams):
            first, second = [await send(place) for _ in range(2)]
            await until(lambda: streams.tried > 2)
            waiting = place.engine.status_log.state()
            streams.problem = None
            await until(lambda: len(streams.lines) == 2)
            await until(lambda: not place.engine.status_log.state().problem)

        state = place.engine.status_log.state()
        assert (waiting.waiting, waiting.problem) == (2, "the log streams are full")
        assert [line["request_id"] for line in streams.lines] == [first, second]
        assert (state.written, state.waiting, state.dropped) == (2, 0, 0)


async def test_an_unexpected_error_of_the_streams_is_logged_and_retried(tmp_path: Path) -> None:
    streams = Streams()
    streams.problem = KeyError("bug")
    async with logging(tmp_path) as place:
        with place.engine.logs.status_lines_stored_by(streams):
            await send(place)
            await until(lambda: streams.tried > 2)
            told = place.engine.status_log.state().problem
            streams.problem = None
            await until(lambda: len(streams.lines) == 1)

        assert told == "KeyError: 'bug'"


async def test_lines_are_not_written_to_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams()
    async with logging(tmp_path) as place:
        await send(place)
        guard = place.engine.status_log._disk

        def refuse(size: int = 0) -> None:
            raise DiskLow(0, 1 << 20)

        monkeypatch.setattr(guard, "check", refuse)
        with place.engine.logs.status_lines_stored_by(streams):
            await until(lambda: streams.tried > 0)
            await until(lambda: bool(place.engine.status_log.state().problem))

        assert "the disk has 0 MiB free" in place.engine.status_log.state().problem
        assert await place.engine.storage.store("streams").scan("lines") == []
        assert place.engine.storage.status_log.statistics().waiting == 1


async def test_lines_wait_for_a_service_over_a_restart(tmp_path: Path) -> None:
    streams = Streams()
    async with logging(tmp_path) as place:
        request_id = await send(place)
        problem = place.engine.status_log.state().problem
    async with house(tmp_path) as place:
        with place.engine.logs.status_lines_stored_by(streams):
            await until(lambda: bool(streams.lines))

    assert problem == "no service stores log streams"
    assert streams.lines[0]["request_id"] == request_id


async def test_a_published_version_has_the_settings_of_latest(tmp_path: Path) -> None:
    streams = Streams()
    async with logging(tmp_path) as place:
        engine = place.engine
        await engine.versions.publish(place.urn, name="v1")
        with engine.logs.status_lines_stored_by(streams):
            urn = msgspec.structs.replace(place.urn, qualifier="v1")
            while not streams.lines:  # until the change is followed
                await engine.intake.accept(Request(function=urn, payload=b"{}"))
                await anyio.sleep(0.01)

    assert streams.lines[0]["function_urn"].endswith(":hello:v1")


async def test_settings_count_after_a_restart_even_if_the_storage_does_not_follow_them(tmp_path: Path) -> None:
    streams = Streams()
    async with house(tmp_path) as place:
        await place.engine.catalog.put_settings(place.urn, AsyncSettings(status_log=True))
        await send(place)
    async with house(tmp_path) as place:
        request_id = await send(place)
        with place.engine.logs.status_lines_stored_by(streams):
            await until(lambda: request_id in {line["request_id"] for line in streams.lines})
