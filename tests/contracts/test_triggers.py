"""Contract of trigger sources: every event is accepted exactly once, promptly and without manual steps."""

from __future__ import annotations

import itertools
from functools import partial
from random import Random

import anyio
import anyio.to_thread
import pytest

from engine.config.plugin_registry import load_plugins
from engine.errors import InvalidField
from engine.protocols import Selection
from tests.contracts.rigs.base import Rig
from tests.contracts.scenes import NOWHERE, having, process_scene, scene
from tests.support.triggering import house
from tests.support.waiting import until


async def test_each_event_calls_the_function_once(rig: Rig) -> None:
    async with scene(rig) as one:
        assert await one.send(1, 2, 3) == [True] * 3
        await one.has(1, 2, 3)

        await until(lambda: one.place.state(one.trigger).accepted >= 1)
        keys = await one.place.keys()
        selection = Selection(function_id=1, trigger_id=one.trigger.id)
        assert (await one.place.engine.storage.records.list(selection))[1] == len(keys)


async def test_bad_options_are_refused_with_their_field(rig: Rig) -> None:
    async with house(rig.folder / "data", load_plugins(rig.modules)) as place:
        for change, field in rig.bad:
            with pytest.raises(InvalidField) as refused:
                await place.create(rig.kind, **{**rig.options(), **change})
            assert field in refused.value.field

        assert list(place.engine.resources.triggers.all()) == []
        assert rig.bad


@having(may_disable=True)
async def test_a_disabled_trigger_takes_nothing_until_it_is_enabled(rig: Rig) -> None:
    async with scene(rig) as one:
        await one.send(1)
        await one.has(1)
        await one.place.update(one.trigger, status="DISABLED")
        await one.is_in("disabled")
        taken = await one.send(2)
        await one.place.update(one.trigger, status="ACTIVE")
        await one.runs()
        await one.send(3)

        assert taken == [rig.pulls]
        await one.has(1, 3, *([2] if rig.pulls else []))


async def test_a_deleted_trigger_takes_nothing(rig: Rig) -> None:
    async with scene(rig) as one:
        await one.send(1)
        await one.has(1)
        await one.place.delete(one.trigger)
        await until(lambda: one.place.engine.sources.state(one.trigger.id) is None)

        assert await one.send(2) == [rig.pulls]
        await one.has(1)


async def test_a_changed_trigger_goes_on_where_it_was(rig: Rig) -> None:
    async with scene(rig) as one:
        await one.send(1)
        await one.has(1)
        await one.place.update(one.trigger, **rig.change)
        await one.runs()

        assert await one.send(2) == [True]
        await one.has(1, 2)


async def test_the_next_engine_goes_on_where_the_last_ended(rig: Rig) -> None:
    async with scene(rig) as one:
        await one.send(1)
        await one.has(1)
    if rig.pulls:
        await rig.send(NOWHERE, 2)
    async with scene(rig) as one:
        await one.send(*([3] if rig.pulls else [1, 2, 3]))

        await one.has(1, 2, 3)


async def test_a_full_backlog_makes_the_source_or_the_sender_wait(rig: Rig) -> None:
    async with scene(rig, queue__function_rows=1) as one:
        await one.send(1)
        await one.has(1)
        taken = await one.send(2)
        await until(lambda: not rig.pulls or "backlog" in one.place.state(one.trigger).problem)
        before = await one.numbers()
        [first] = await one.place.keys()
        await one.place.engine.dispatcher.cancel(first)
        if not rig.pulls:
            await one.send(2)

        await one.has(1, 2)
        assert (taken, before) == ([rig.pulls], [1])


@having(breakable=True)
async def test_a_source_whose_server_fails_reports_a_problem_and_comes_back(rig: Rig) -> None:
    async with scene(rig) as one:
        await one.send(1)
        await one.has(1)
        await rig.breaks()
        await until(lambda: one.place.state(one.trigger).problem)
        await rig.mends()
        await one.send(2)

        await one.has(1, 2)


@pytest.mark.long
async def test_nothing_is_missed_or_taken_twice_when_the_engine_is_killed(rig: Rig) -> None:
    await anyio.to_thread.run_sync(lambda: anyio.run(_kill_twice, rig))


async def _kill_twice(rig: Rig) -> None:
    """Send continuously, kill the engine twice at random moments and check the stored payloads."""
    random, sent = Random(7), itertools.count(1)
    async with process_scene(rig) as one:
        last = 0
        for least in (2, 4):
            deadline = anyio.current_time() + 0.1 + 0.4 * random.random()
            while anyio.current_time() < deadline or last < least:
                last = next(sent)
                await one.send(last)
                await anyio.sleep(0.005)
            one.engine.kill()
            one.engine.start()
        for number in range(1, last + 1) if not rig.pulls else ():  # push senders repeat events without an answer
            await until(partial(one.send, number))
        await until(lambda: len(one.numbers()) >= last)

        assert sorted(one.numbers()) == list(range(1, last + 1))
