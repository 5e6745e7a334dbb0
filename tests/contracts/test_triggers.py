"""Contract of trigger sources: every event is accepted exactly once, also when what they read is made anew."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import pytest
from msgspec import Struct

from engine.protocols import Selection
from tests.contracts.rigs.base import Rig
from tests.contracts.rigs.dis import Own
from tests.contracts.rigs.lts import Written
from tests.contracts.scenes import NOWHERE, RIGS, Scene, having, process_scene, scene
from tests.support.waiting import until


async def test_each_event_calls_the_function_once(rig: Rig) -> None:
    async with scene(rig) as it:
        assert await it.send(1, 2, 3) == [True] * 3
        await it.has(1, 2, 3)

        await until(lambda: it.place.state(it.trigger).accepted >= 1)
        keys = await it.place.keys()
        selection = Selection(function_id=1, trigger_id=it.trigger.id)
        assert (await it.place.engine.storage.records.list(selection))[1] == len(keys)


@having(may_disable=True)
async def test_a_disabled_trigger_takes_nothing_until_it_is_enabled(rig: Rig) -> None:
    async with scene(rig) as it:
        await it.send(1)
        await it.has(1)
        await it.place.update(it.trigger, status="DISABLED")
        await it.is_in("disabled")
        taken = await it.send(2)
        await it.place.update(it.trigger, status="ACTIVE")
        await it.runs()
        await it.send(3)

        assert taken == [rig.pulls]
        await it.has(1, 3, *([2] if rig.pulls else []))


async def test_a_deleted_trigger_takes_nothing(rig: Rig) -> None:
    async with scene(rig) as it:
        await it.send(1)
        await it.has(1)
        await it.place.delete(it.trigger)
        await until(lambda: it.place.engine.sources.state(it.trigger.id) is None)

        assert await it.send(2) == [rig.pulls]
        await it.has(1)


async def test_a_changed_trigger_goes_on_where_it_was(rig: Rig) -> None:
    async with scene(rig) as it:
        await it.send(1)
        await it.has(1)
        await it.place.update(it.trigger, **rig.change)
        await it.runs()

        assert await it.send(2) == [True]
        await it.has(1, 2)


async def test_the_next_engine_goes_on_where_the_last_ended(rig: Rig) -> None:
    async with scene(rig) as it:
        await it.send(1)
        await it.has(1)
    if rig.pulls:
        await rig.send(NOWHERE, 2)
    async with scene(rig) as it:
        await it.send(*([3] if rig.pulls else [1, 2, 3]))

        await it.has(1, 2, 3)


async def test_a_full_backlog_makes_the_source_or_the_sender_wait(rig: Rig) -> None:
    async with scene(rig, queue__function_rows=1) as it:
        await it.send(1)
        await it.has(1)
        taken = await it.send(2)
        await until(lambda: not rig.pulls or "backlog" in it.place.state(it.trigger).problem)
        before = await it.numbers()
        [first] = await it.place.keys()
        await it.place.engine.dispatcher.cancel(first)
        if not rig.pulls:
            await it.send(2)

        await it.has(1, 2)
        assert (taken, before) == ([rig.pulls], [1])


@having(breakable=True)
async def test_a_source_whose_server_fails_reports_a_problem_and_comes_back(rig: Rig) -> None:
    async with scene(rig) as it:
        await it.send(1)
        await it.has(1)
        await rig.breaks()
        await until(lambda: it.place.state(it.trigger).problem)
        await rig.mends()
        await it.send(2)

        await it.has(1, 2)


@pytest.mark.long
async def test_nothing_is_missed_or_taken_twice_when_the_engine_is_killed(rig: Rig) -> None:
    await anyio.to_thread.run_sync(lambda: anyio.run(_kill_twice, rig))


async def _kill_twice(rig: Rig) -> None:
    """Send continuously, kill the engine twice at random moments and check the stored payloads."""
    random, sent = Random(7), itertools.count(1)
    async with process_scene(rig) as it:
        last = 0
        for least in (2, 4):
            deadline = anyio.current_time() + 0.1 + 0.4 * random.random()
            while anyio.current_time() < deadline or last < least:
                last = next(sent)
                await it.send(last)
                await anyio.sleep(0.005)
            it.engine.kill()
            it.engine.start()
        for number in range(1, last + 1) if not rig.pulls else ():  # push senders repeat events without an answer
            await until(partial(it.send, number))
        await until(lambda: len(it.numbers()) >= last)

        assert sorted(it.numbers()) == list(range(1, last + 1))


# --- made anew -----------------------------------------------------------------------------------------------

ALL: list[type[Rig]] = [*RIGS, Own, Written]
SECONDS = 60.0  #: after which a test fails
#: States of the reader while it happens. ``late``: paused, and sessions expire; ``changed``: serial, and the trigger is
#: changed while its last batch runs.
READERS = ("running", "paused", "full", "serial", "changed", "late", "stopped", "restarted")
#: Those that are tried at each run, of rigs that are not ``inside`` and of those that are.
QUICK = ({"full", "stopped", "late"}, {"full", "restarted"})


def _can(rig: type[Rig], reader: str) -> bool:
    needs = {"serial": bool(rig.serial), "changed": bool(rig.serial), "late": rig.expires, "stopped": not rig.inside}
    return needs.get(reader, True)


def _cases() -> Iterator[Any]:
    """Yield rigs with all readers and numbers of parts. All but a few are long."""
    for rig in ALL:
        readers = [reader for reader in READERS if _can(rig, reader)]
        for part, reader in itertools.product(rig.parts, readers):
            quick = reader in QUICK[rig.inside] and part == rig.parts[readers.index(reader) % len(rig.parts)]
            marks = () if quick else pytest.mark.long
            yield pytest.param(rig, part, reader, id=f"{_name(rig)}-{part}-{reader}", marks=marks)


def _name(rig: type[Rig]) -> str:
    own = "" if rig.__name__ == "Rig" else f"-{rig.__name__.lower()}"
    return rig.__module__.rpartition(".")[2] + own


class Trial(Struct, kw_only=True):
    """Scene whose events are counted. After a restart, it goes on with the next engine."""

    one: Scene
    sent: list[int] = []
    must: set[int] = set()  #: events that were sent to what was made anew, and cannot be lost

    async def send(self, *numbers: int, lost: bool = False) -> None:
        """Send events. ``lost``: they may get lost, if that is reported."""
        self.sent += numbers
        self.must |= set() if lost else {*numbers}
        assert all(await self.one.send(*numbers))

    async def seen(self) -> list[int]:
        return await self.one.numbers()

    async def settles(self, *, counted: bool) -> None:
        """End all invocations until each event was seen or reported, and assert that it is so.

        ``counted``: the exact number of lost events must be reported.
        """
        state, missing = self.one.place.state(self.one.trigger), {*self.sent}
        with anyio.move_on_after(SECONDS):
            while self.must & missing or (state.lost < len(missing) and (counted or not state.problem)):
                await self.end_all()
                await anyio.sleep(0.005)
                state, missing = self.one.place.state(self.one.trigger), {*self.sent} - {*await self.seen()}
        await anyio.sleep(0.05)  # time for a repeated event to come

        seen = await self.seen()
        assert sorted(self.must & missing) == []
        assert max(map(seen.count, seen)) <= self.one.rig.sightings
        assert self.one.place.state(self.one.trigger).lost == (len(missing) if counted else 0)
        assert state.problem or not missing

    @property
    def problem(self) -> str:
        return self.one.place.state(self.one.trigger).problem

    async def end_all(self) -> None:
        for key in await self.one.place.keys():
            await self.one.place.engine.dispatcher.cancel(key)

    async def waits(self, text: str) -> None:
        await until(lambda: text in self.problem)


@asynccontextmanager
async def trial(rig: Rig, reader: str) -> AsyncIterator[Trial]:
    """Run a trigger that has read three events, and then is in the state of ``reader``, with unread ones."""
    settings = {"queue__function_rows": 1} if reader == "full" else {}
    async with scene(rig, **settings) as one:
        if reader in ("serial", "changed"):
            one.trigger = await one.place.update(one.trigger, **rig.serial)
            await one.runs()
        it = Trial(one=one)
        with anyio.fail_after(SECONDS):
            await it.send(1, 2, 3)
            while {*await it.seen()} != {1, 2, 3}:
                await it.end_all()
            await _block(it, reader)
            if reader == "changed":
                one.trigger = await one.place.update(one.trigger, **rig.change)
                await one.runs()
        yield it


async def _block(it: Trial, reader: str) -> None:
    """Let the source wait for the function with an event, and send more, which it has not read."""
    match reader:
        case "paused" | "late":
            await it.one.place.engine.catalog.limit(it.one.place.urn, 0)
            await it.send(4, lost=True)
            await it.waits("Disabled")
        case "full":
            for number in (4, 5):  # at the latest, the second finds a full backlog
                await it.send(number, lost=True)
                while number not in await it.seen() and "backlog" not in it.problem:  # noqa: ASYNC110  (no event)
                    await anyio.sleep(0.005)
            await it.waits("backlog")
        case "serial" | "changed":
            await it.send(4, lost=True)
            while 4 not in await it.seen():
                await it.end_all()
            await it.send(5, lost=True)
        case _:
            return
    await it.send(6, 7, 8, 9, lost=True)


async def _release(it: Trial) -> None:
    await it.one.place.engine.catalog.limit(it.one.place.urn, 5)


def _while_stopped(do: Callable[[], Awaitable[None]]) -> None:
    """Call a function on another thread while this event loop stands still, as a stopped process does."""
    thread = threading.Thread(target=lambda: anyio.run(do))
    thread.start()
    thread.join()


@pytest.mark.parametrize(("rig", "parts", "reader"), list(_cases()), indirect=["rig"])
async def test_no_event_is_lost_unreported_when_the_source_is_made_anew(rig: Rig, parts: str, reader: str) -> None:
    async def make_anew() -> None:
        await rig.remove(it.one.target)
        await rig.restore(it.one.target, parts)
        if reader in ("late", "stopped") and rig.expires:
            rig.age(310)

    async with trial(rig, reader) as it:
        if reader == "stopped":
            _while_stopped(make_anew)
        elif reader != "restarted" or rig.inside:
            await make_anew()
        if reader != "restarted":
            await it.send(*range(10, 20))
            await _release(it)
            await it.settles(counted=rig.counts_removed)
    if reader == "restarted":
        if not rig.inside:
            await make_anew()
        async with scene(rig) as one:
            it.one = one
            await it.send(*range(10, 20))
            await it.settles(counted=rig.counts_removed)


@pytest.mark.parametrize("rig", [pytest.param(kind, id=_name(kind)) for kind in ALL if kind.parts], indirect=["rig"])
async def test_a_removal_is_reported_until_the_source_is_back(rig: Rig) -> None:
    async with trial(rig, "full") as it:
        await rig.remove(it.one.target)
        with anyio.fail_after(SECONDS):
            while not it.problem or "paused" in it.problem:
                await it.end_all()
        await rig.restore(it.one.target, "same")
        await it.send(*range(10, 20))
        await it.settles(counted=rig.counts_removed)


@pytest.mark.parametrize(
    ("rig", "reader"),
    [
        pytest.param(kind, reader, id=f"{_name(kind)}-{reader}", marks=() if reader == "full" else pytest.mark.long)
        for kind in ALL
        for reader in ("paused", "full", "serial")
        if kind.expires and _can(kind, reader)
    ],
    indirect=["rig"],
)
async def test_events_that_retention_removes_unread_are_counted(rig: Rig, reader: str) -> None:
    async with trial(rig, reader) as it:
        await rig.expire()
        await it.send(*range(10, 20))
        await _release(it)
        await it.settles(counted=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "rig", [pytest.param(kind, id=_name(kind)) for kind in ALL if kind.parts and not kind.inside], indirect=["rig"]
)
async def test_nothing_is_lost_in_silence_when_the_process_was_stopped_or_killed(rig: Rig) -> None:
    await anyio.to_thread.run_sync(lambda: anyio.run(_stop_and_kill, rig))


async def _stop_and_kill(rig: Rig) -> None:
    """Make it anew with unread events while the engine is stopped by a signal, and while it is dead."""
    numbers, must = itertools.count(1), set[int]()
    async with process_scene(rig) as one:

        async def send(count: int) -> set[int]:
            sent = set(itertools.islice(numbers, count))
            assert all([await one.send(number) for number in sorted(sent)])
            return sent

        must |= await send(3)
        for killed in (False, True):
            while not must <= {*one.numbers()}:  # noqa: ASYNC110  (rows offer no event)
                await anyio.sleep(0.02)
            if killed:
                one.engine.kill()
            else:
                one.engine.signal(signal.SIGSTOP)
            unread = await send(5)
            await rig.remove(one.target)
            await rig.restore(one.target, "same")
            must |= await send(0 if rig.unbound else 5)
            await anyio.sleep(2)
            if killed:
                one.engine.start()
            else:
                one.engine.signal(signal.SIGCONT)
            must |= await send(5 if rig.unbound else 0)
            missing, lost, problem = unread, 0, ""
            counted = rig.counts_removed and not (killed and rig.unbound)
            while not must <= {*one.numbers()} or (lost < len(missing) if counted else missing and not problem):
                await anyio.sleep(0.05)
                missing = unread - {*one.numbers()}
                problem, lost = (one.state()[name] for name in ("problem", "lost"))
            assert not counted or lost == len(missing)

        seen = one.numbers()
        assert max(map(seen.count, seen)) <= rig.sightings
