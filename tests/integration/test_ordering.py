"""Ordering keys in a running engine: invocations of a key in order, one or several at a time, over a restart."""

from __future__ import annotations

import asyncio
import json
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec

from engine.code.store import CodeSource
from engine.model import AsyncSettings, Code, Request, State
from engine.model.urn import FunctionUrn, parse_urn
from tests.support.http_app import PROJECT, REGION, encoded
from tests.support.triggering import HELD, House, house

ORDERED = parse_urn("ordered", region=REGION, project=PROJECT)
KEYS, EACH = 3, 5
#: Writes begin and end of each attempt to a file. The first attempt of every third event fails.
HANDLER = """
import os, time
def handler(event, context):
    fd = os.open(event["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{event['key']} {event['n']} begin\\n".encode())
    first = not os.path.exists(f"{event['file']}-{event['key']}-{event['n']}")
    os.close(os.open(f"{event['file']}-{event['key']}-{event['n']}", os.O_CREAT))
    time.sleep(0.002)
    os.write(fd, f"{event['key']} {event['n']} end\\n".encode())
    os.close(fd)
    if first and event["n"] % 3 == 2:
        raise ValueError("once")
"""


async def create(place: House, settings: AsyncSettings) -> None:
    hello = place.engine.catalog.route(place.urn)
    ordered = msgspec.structs.replace(hello, function_id=0, name="ordered", max_instances=4)
    await place.engine.catalog.create(ordered, CodeSource(kind="inline", file=encoded(HANDLER)))
    await place.engine.catalog.put_settings(ORDERED, settings)


async def send(place: House, key: str, n: int, file: Path, urn: FunctionUrn = ORDERED) -> str:
    payload = json.dumps({"key": key, "n": n, "file": str(file)}).encode()
    return await place.engine.intake.accept(
        Request(function=urn, payload=payload, ordering_key=key, priority=n % 10, delay=0.05 if n == 1 else 0.0)
    )


async def end_of(place: House, request_id: str) -> State:
    key = place.engine.storage.identity.key_of(request_id)
    assert key is not None
    await place.engine.dispatcher.ended(key, None)
    record = await place.engine.storage.records.get(key)
    assert record is not None
    return record.state


async def test_invocations_of_a_key_run_one_at_a_time_in_order_over_retries_and_a_restart(tmp_path: Path) -> None:
    file, ids = tmp_path / "log", list[str]()
    async with house(tmp_path / "data", executor__isolation="process") as place:
        await create(place, AsyncSettings(max_retries=1))
        ids += [await send(place, f"k{key}", n, file) for n in range(EACH) for key in range(KEYS)]
        place.engine.scheduler.resume(HELD)
        await end_of(place, ids[0])
    async with house(tmp_path / "data", executor__isolation="process") as place:
        place.engine.scheduler.resume(HELD)
        ids += [await send(place, f"k{key}", EACH, file) for key in range(KEYS)]

        assert {await end_of(place, request_id) for request_id in ids} == {State.SUCCESS}

    lines = [line.split() for line in file.read_text().splitlines()]
    for key in range(KEYS):
        own = [(int(n), edge) for name, n, edge in lines if name == f"k{key}"]
        begins = [n for n, edge in own if edge == "begin"]
        assert begins == sorted(begins)
        assert set(begins) == set(range(EACH + 1))
        # An attempt that the restart ended has no end. The same invocation begins again then.
        changes = [before for before, after in pairwise(own) if before[0] != after[0]]
        assert {edge for _, edge in changes} == {"end"}
    assert len({name for name, _, _ in lines[: 2 * KEYS]}) > 1, "other keys wait for none"


async def test_a_redriven_invocation_takes_the_last_place_of_its_key(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with house(tmp_path / "data", executor__isolation="process") as place:
        await create(place, AsyncSettings(max_retries=0))
        place.engine.scheduler.resume(HELD)
        failed = await send(place, "k", 2, file)
        assert await end_of(place, failed) is State.FAIL

        place.engine.scheduler.hold(HELD)
        waiting = await send(place, "k", 3, file)
        again = await place.engine.redrive.invoke(ORDERED, failed)
        place.engine.scheduler.resume(HELD)
        assert await end_of(place, again) is State.SUCCESS

        assert await end_of(place, waiting) is State.SUCCESS
        lines = [line.split()[1] for line in file.read_text().splitlines() if line.endswith("begin")]
        assert lines == ["2", "3", "2"]


async def test_a_held_invocation_over_its_age_is_discarded_when_it_is_its_turn(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with house(tmp_path / "data", executor__isolation="process") as place:
        await create(place, AsyncSettings(max_age=1, max_retries=1))
        blocking = await place.engine.intake.accept(
            Request(function=ORDERED, payload=b"{}", ordering_key="k", delay=1.2)
        )
        old = await send(place, "k", 0, file)
        place.engine.scheduler.resume(HELD)

        assert await end_of(place, old) is State.DISCARD
        assert (await end_of(place, blocking)).final  # discarded, too, if a busy machine runs it late
        record = await place.engine.storage.records.get(place.engine.storage.identity.key_of(old) or 0)
        assert record is not None
        assert record.code == Code.EXPIRED


async def test_a_rate_spreads_the_starts_of_its_function(tmp_path: Path) -> None:
    async with house(tmp_path / "data", executor__isolation="process") as place:
        await create(place, AsyncSettings())
        await place.engine.controls.change(ORDERED, {"rate": 20.0, "burst": 2})
        ids = [await send(place, f"k{n}", 0, tmp_path / "log") for n in range(6)]
        elapsed = asyncio.get_running_loop().time
        began = elapsed()
        place.engine.scheduler.resume(HELD)

        assert {await end_of(place, request_id) for request_id in ids} == {State.SUCCESS}
        assert elapsed() - began >= 4 / 20 - 0.01
    async with house(tmp_path / "data") as place:
        assert place.engine.controls.show(ORDERED).rate == 20.0
        assert place.engine.scheduler._queue.rated


#: Waits until another invocation has begun beside it, or before it.
PAIRED = """
import os, time
def handler(event, context):
    with open(event, "a") as file:
        file.write("begin ")
    until = time.monotonic() + 30
    while open(event).read().count("begin") < 2 and time.monotonic() < until:
        time.sleep(0.002)
    with open(event, "a") as file:
        file.write("end ")
"""


async def test_as_many_invocations_of_a_key_run_at_a_time_as_their_function_says(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with house(tmp_path / "data", executor__isolation="process") as place:
        hello = place.engine.catalog.route(place.urn)
        ordered = msgspec.structs.replace(hello, function_id=0, name="ordered", max_instances=4)
        await place.engine.catalog.create(ordered, CodeSource(kind="inline", file=encoded(PAIRED)))
        await place.engine.catalog.update(ORDERED, {"details": {"functiond": {"per_key": 2}}})
    async with house(tmp_path / "data", executor__isolation="process") as place:
        request = Request(function=ORDERED, payload=json.dumps(str(file)).encode(), ordering_key="a")
        ids = [await place.engine.intake.accept(request) for _ in range(6)]
        place.engine.scheduler.resume(HELD)
        assert {await end_of(place, request_id) for request_id in ids} == {State.SUCCESS}

    edges = [1 if word == "begin" else -1 for word in file.read_text().split()]
    assert max(accumulate(edges)) == 2
