"""LTS: lines that functions write call other functions, without loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog.testing
from msgspec import Struct

from engine import project_log_target
from engine.logs.feed import LogBoard
from engine.logs.lines import STDOUT, encode
from engine.model import Function, Invocation
from engine.resources.bound_trigger import BoundTrigger
from plugins.lts import engine_lines
from plugins.lts import plugin as lts
from tests.support.executing import function, invocation
from tests.support.http_app import PROJECT
from tests.support.logs import items, messages
from tests.support.triggering import House, house, until

OWN = project_log_target(PROJECT)


def writer(name: str = "writer", **fields: Any) -> Function:
    return function(name, name=name, project=PROJECT, **fields)


class Scene(Struct, kw_only=True):
    place: House

    @property
    def board(self) -> LogBoard:
        return self.place.engine.plugins.of(lts).logs

    async def listen(self, group: str = OWN.group_id, stream: str = OWN.stream_id) -> BoundTrigger:
        """Create a trigger for the function ``hello`` and wait until its source runs."""
        trigger = await self.place.create("LTS", log_group_id=group, log_topic_id=stream)
        await until(lambda: self.place.state(trigger).state == "running")
        return trigger

    def write(self, text: str, by: Function | None = None, run: Invocation | None = None) -> None:
        self.board.publish(by or writer(), run or invocation(), encode(1_764_041_045_123, STDOUT, text.encode()))

    async def has(self, *texts: str) -> list[Any]:
        while sorted(messages(events := await self.place.events())) != sorted(texts):
            assert len(messages(events)) <= len(texts), messages(events)
            await anyio.sleep(0.005)
        return events


@asynccontextmanager
async def scene(folder: Path, **more: Any) -> AsyncIterator[Scene]:
    async with house(folder, [lts], plugins__lts__batch_wait=0.01, **more) as place:
        yield Scene(place=place)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_lines, "PAUSE", 0.0)


async def test_lines_of_a_function_tell_who_wrote_them_for_what_and_after_how_many_functions(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.listen()
        run = invocation(source="FunctionGraph", hops=2)
        one.write("first\nsecond", run=run)
        [event] = await one.has("first", "second")

        assert items(event)[0] == {
            "message": "first",
            "time": 1_764_041_045_123,
            "host_name": "writer",
            "ip": "127.0.0.1",
            "path": f"urn:fss:local-1:{PROJECT}:function:default:writer:latest",
            "log_uid": run.request_id,
            "line_no": 1,
        }
        [key] = await one.place.keys()
        record = await one.place.engine.storage.records.get(key)
        assert record is not None
        assert (record.source, record.hops) == ("LTS", 3)


async def test_lines_go_where_the_configuration_of_their_function_says_with_its_tags(tmp_path: Path) -> None:
    to = {"log_config": {"group_id": "g", "stream_id": "s"}}
    async with scene(tmp_path, plugins__lts__labels=True) as one:
        await one.listen("g", "s")
        one.write("elsewhere")
        one.write("off", writer(details={**to, "enable_lts_log": False}))
        one.write("of others", function("f", details=to))
        one.write("here", writer(details={**to, "enable_lts_log": True, "lts_custom_tag": {"team": "a"}}))

        [event] = await one.has("here")
        assert items(event)[0]["labels"] == {"team": "a"}


async def test_no_function_is_called_in_a_circle(tmp_path: Path) -> None:
    """Write lines of which all but the last two would lead back to their origin, or might."""
    async with scene(tmp_path) as it:
        await it.listen()
        it.write("its own", writer("hello"))
        it.write("of an older version", writer("hello", version="v1"))
        it.write("by lines of functions", run=invocation(source="LTS", hops=1))
        it.write("after many destinations", run=invocation(source="FunctionGraph", hops=engine_lines.HOPS))
        it.board.publish(writer(), None, encode(1, STDOUT, b"of an instance"))
        it.write("by lines that were sent", run=invocation(source="LTS"))
        it.write("by a destination", run=invocation(source="FunctionGraph", hops=2))

        await it.has("by lines that were sent", "by a destination")


async def test_nobody_hears_functions_without_a_trigger(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        trigger = await it.listen()
        await it.place.delete(trigger)
        await until(lambda: it.place.engine.sources.state(trigger.id) is None)
        it.write("nobody")
        await it.listen()
        it.write("somebody")

        await it.has("somebody")


async def test_lines_wait_in_memory_for_room_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_lines, "PAUSE", 0.05)
    monkeypatch.setattr(engine_lines, "WAITING", 1000)
    async with scene(tmp_path) as it:
        await it.listen()
        with structlog.testing.capture_logs() as logs:
            for number in range(5):
                it.write(str(number) * 300)
            await it.has("0" * 300)
            it.write("later")
            await it.has("0" * 300, "later")

        dropped = [line for line in logs if "dropp" in line["event"]]
        assert [line.get("lines") for line in dropped] == [None, 4]


async def test_what_waits_is_written_when_the_engine_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_lines, "PAUSE", 60.0)
    async with scene(tmp_path) as it:
        await it.listen()
        it.write("at the end")
    async with scene(tmp_path) as it:
        await it.has("at the end")
