"""Reasons for which an invocation waits, from a real scheduler and a storage in memory."""

from __future__ import annotations

from typing import Any

import pytest

from engine.model import Invocation, Record
from engine.model.clock import SystemClock
from engine.pipeline.explanation import Explainer, Explanation
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import MemoryStorage
from tests.support.storages import made


class House:
    """Scheduler with two slots for asynchronous work and 1000 MiB, over a storage in memory."""

    def __init__(self) -> None:
        self.storage, self.clock = MemoryStorage(), SystemClock()
        self.scheduler = Scheduler(RunQueue(slots=2, sync_slots=0, memory=1000), self.storage.window, self.clock)
        self.explainer = Explainer(
            self.storage.records, self.storage.calls, self.scheduler, self.clock, self.storage.identity
        )
        self.configure()

    def configure(self, function_id: int = 1, *, limit: int = -1, memory: int = 100) -> None:
        self.scheduler.configure(function_id, weight=1.0, limit=limit, memory=memory)

    async def send(self, function_id: int = 1, **fields: Any) -> Invocation:
        invocation = made(self.storage, function_id, **fields)
        await self.storage.journal.append(invocation)
        self.scheduler.push(invocation)
        return invocation

    async def run(self, function_id: int = 1, *, begun: bool = True) -> Invocation:
        """Start an invocation."""
        await self.send(function_id, rank=-1e9)
        invocation = (await self.scheduler.take()).invocation
        self.storage.journal.start(invocation, self.clock.now(), begun=begun)
        return invocation

    async def explained(self, invocation: Invocation) -> Explanation:
        record = await self.storage.records.get(invocation.key)
        assert isinstance(record, Record)
        return await self.explainer.explain(record)

    async def reasons(self, invocation: Invocation) -> list[str]:
        return [reason.reason for reason in (await self.explained(invocation)).reasons]


@pytest.fixture
async def house() -> House:
    return House()


async def test_a_held_invocation_names_the_one_before_it(house: House) -> None:
    first, second, third = [made(house.storage, ordering_key="k 1") for _ in range(3)]
    for invocation in (first, second, third):
        await house.storage.journal.append(invocation)
    place = await house.explained(third)

    assert (place.ahead, [reason.reason for reason in place.reasons]) == (None, ["held"])
    assert second.request_id in place.reasons[0].text
    assert "'k 1'" in place.reasons[0].text
    assert first.request_id in (await house.explained(second)).reasons[0].text
    house.scheduler.set_pause(1, "")
    assert await house.reasons(third) == ["paused", "held"]


async def test_a_used_up_rate_is_a_reason(house: House) -> None:
    house.scheduler.set_rate(1, 0.001, 1)
    await house.run()
    waiting = await house.send()

    assert await house.reasons(waiting) == ["rate"]
    house.scheduler.set_rate(1, 0.0, 1)
    assert await house.reasons(waiting) == []


async def test_the_next_invocation_has_no_reason_and_a_later_one_those_before_it(house: House) -> None:
    first, second = await house.send(), await house.send()

    assert (await house.reasons(first), await house.reasons(second)) == ([], ["order"])
    assert [(await house.explained(invocation)).ahead for invocation in (first, second)] == [0, 1]


async def test_a_pause_comes_first_with_its_reason(house: House) -> None:
    await house.send()
    invocation = await house.send()
    house.scheduler.set_pause(1, "a migration")
    explanation = await house.explained(invocation)

    assert [reason.reason for reason in explanation.reasons] == ["paused", "order"]
    assert "a migration" in explanation.reasons[0].text


async def test_a_delay_and_a_retry_tell_their_time(house: House) -> None:
    retry = await house.send(delayed=True, due_at=house.clock.now() + 1000, attempt=2)
    explanation = await house.explained(retry)

    fresh = await house.send(delayed=True, due_at=house.clock.now() + 1000)

    assert (await house.reasons(retry), await house.reasons(fresh), explanation.ahead) == (["retry"], ["delay"], None)
    assert explanation.reasons[0].text.endswith("Z, as attempt 2")


async def test_the_limit_of_the_function_is_a_reason(house: House) -> None:
    house.configure(limit=1)
    await house.run()

    assert await house.reasons(await house.send()) == ["limit"]


async def test_missing_capacity_of_nodes_is_a_reason(house: House) -> None:
    house.scheduler.set_places(1, ("latest", 0), 0)
    invocation = await house.send()
    assert await house.reasons(invocation) == ["capacity"]

    house.scheduler.set_places(1, ("latest", 0), -1)
    assert await house.reasons(invocation) == []


async def test_busy_slots_and_missing_memory_are_reasons(house: House) -> None:
    house.configure(2, memory=950)
    await house.run(2)
    invocation = await house.send()
    assert await house.reasons(invocation) == ["memory"]
    house.configure(memory=50)
    await house.run()

    assert await house.reasons(invocation) == ["slots"]


async def test_a_hold_of_the_whole_engine_is_a_reason(house: House) -> None:
    house.scheduler.hold("the host is busy")
    explanation = await house.explained(await house.send())

    assert [reason.reason for reason in explanation.reasons] == ["engine"]
    assert "the host is busy" in explanation.reasons[0].text


async def test_a_function_whose_ages_are_in_doubt_waits_for_the_clock(house: House) -> None:
    await house.send()
    house.scheduler.park(await house.scheduler.take())

    assert "clock" in await house.reasons(await house.send(rank=-1e9))


async def test_a_running_invocation_is_starting_until_its_handler_begins(house: House) -> None:
    assert await house.reasons(await house.run(begun=False)) == ["starting"]
    assert await house.reasons(await house.run()) == ["running"]
