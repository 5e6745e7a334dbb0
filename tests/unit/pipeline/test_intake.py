"""Invocations made from accepted requests, in particular for a version or an alias."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import FunctionDisabled, FunctionPaused, IdempotencyConflict, InvalidField, NotStored
from engine.functions.catalog import Catalog
from engine.model import Alias, Invocation, Mode, Request, Rule, Strategy
from engine.model.clock import Clock
from engine.pipeline.intake import Intake, InvocationFactory
from engine.scheduling.backlog import Backlog
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import ManualClock, MemoryStorage
from tests.unit.functions.test_versions import DRAFT as FUNCTION
from tests.unit.functions.test_versions import INLINE, House, opened, urn
from tests.unit.pipeline.test_dispatcher import LIMITS

EARLY = Strategy(rules=(Rule(param="X-Ring", value="early"),))


class Queue:
    """Intake, a scheduler with one slot, and their backlog, over a storage in memory."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self.storage, self.backlog = MemoryStorage(), Backlog(LIMITS)
        self.scheduler = Scheduler(RunQueue(slots=1, sync_slots=0, memory=1000), self.storage.window, clock)
        self.intake = Intake(
            catalog=catalog,
            journal=self.storage.journal,
            cursors=self.storage.cursors,
            scheduler=self.scheduler,
            backlog=self.backlog,
            factory=InvocationFactory(self.storage.identity, clock, priority_step=1.0),
            sync_timeout=1.0,
        )


class Ingress(Queue):
    """Queue of the requests for a function with two versions."""

    def __init__(self, house: House) -> None:
        super().__init__(house.catalog, house.clock)
        self.house = house

    async def accept(self, qualifier: str = "", **headers: bytes) -> Invocation:
        """Accept a request and return the stored invocation."""
        named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        request_id = await self.intake.accept(Request(function=urn(qualifier), payload=b"{}", headers=named))
        (row,) = [row for row in self.storage.rows.values() if row.invocation.request_id == request_id]
        return row.invocation


@pytest.fixture
async def ingress(tmp_path: Path) -> Ingress:
    house = await opened(tmp_path / "code", ManualClock())
    await house.catalog.create(FUNCTION, INLINE)
    await house.publish("v1")
    await house.publish("v2")
    return Ingress(house)


async def test_a_call_that_nobody_waits_for_any_more_leaves_the_queue(ingress: Ingress) -> None:
    calling = asyncio.ensure_future(ingress.intake.call(Request(function=urn(""), payload=b"{}", mode=Mode.SYNC)))
    await asyncio.sleep(0)
    assert (ingress.scheduler.statistics().waiting_in_memory, ingress.backlog.calls.rows) == (1, 1)
    calling.cancel()
    await asyncio.wait([calling])

    assert (ingress.scheduler.statistics().waiting_in_memory, ingress.backlog.calls.rows) == (0, 0)


async def test_a_held_invocation_is_not_queued_but_counted(ingress: Ingress) -> None:
    for _ in range(3):
        await ingress.intake.accept(Request(function=urn(""), payload=b"{}", ordering_key="k"))

    assert (ingress.scheduler.statistics().waiting_in_memory, ingress.backlog.rows) == (1, 3)


@pytest.mark.parametrize("key", ["k" * 201, "\xe9", "a\n"])
async def test_an_ordering_key_that_cannot_be_is_refused(ingress: Ingress, key: str) -> None:
    with pytest.raises(InvalidField, match="ordering_key"):
        await ingress.intake.accept(Request(function=urn(""), payload=b"{}", ordering_key=key))
    assert ingress.backlog.rows == 0


async def test_a_synchronous_request_with_an_ordering_key_is_refused(ingress: Ingress) -> None:
    with pytest.raises(InvalidField, match="asynchronous"):
        await ingress.intake.call(Request(function=urn(""), payload=b"{}", mode=Mode.SYNC, ordering_key="k"))


async def test_rules_see_the_headers_of_the_request(ingress: Ingress) -> None:
    await ingress.house.alias("canary", "v1", strategies={"v2": EARLY})

    assert (await ingress.accept("!canary", x_ring=b"early")).version == "v2"
    assert (await ingress.accept("!canary", x_ring=b"late")).version == "v1"


async def test_an_alias_that_moves_leaves_alone_what_was_accepted(ingress: Ingress) -> None:
    await ingress.house.alias("prod", "v1")
    before = await ingress.accept("!prod")

    await ingress.house.aliases.update(urn(), Alias(name="prod", version="v2"))

    assert (before.version, (await ingress.accept("!prod")).version) == ("v1", "v2")


async def test_the_queue_is_told_the_memory_of_a_version(ingress: Ingress) -> None:
    await ingress.house.catalog.update(urn(), {"memory_size": 1024})

    assert (await ingress.accept("v1")).memory == 128


async def test_a_disabled_function_takes_no_request_for_any_version(ingress: Ingress) -> None:
    await ingress.house.catalog.limit(urn(), 0)

    for qualifier in ("", "v1"):
        with pytest.raises(FunctionDisabled):
            await ingress.accept(qualifier)


async def test_only_versions_that_are_http_functions_get_the_members_for_them(ingress: Ingress) -> None:
    await ingress.house.catalog.update(urn(), {"runtime": "http"})
    request = Request(function=urn(), payload=b'{"a":1}', http_members=lambda: b'"b":2,"c":[]')

    ids = [await ingress.intake.accept(replace(request, function=urn(version))) for version in ("", "v1")]
    ids += await ingress.intake.accept_batch([request])

    payloads = {row.invocation.request_id: row.invocation.payload for row in ingress.storage.rows.values()}
    whole = b'{"a":1,"b":2,"c":[]}'
    assert [payloads[request_id] for request_id in ids] == [whole, b'{"a":1}', whole]
    assert ingress.backlog.size == sum(len(payload) for payload in payloads.values())


def calling(ingress: Ingress) -> asyncio.Task[object]:
    """Call the function synchronously in a task of its own."""
    return asyncio.create_task(ingress.intake.call(Request(function=urn(""), payload=b"{}", mode=Mode.SYNC)))


async def test_a_call_of_a_paused_function_is_refused_and_an_event_is_accepted(
    ingress: Ingress,
) -> None:
    (function_id,) = {function.function_id for function in ingress.house.catalog.all()}
    ingress.scheduler.set_pause(function_id, "a migration")

    with pytest.raises(FunctionPaused, match="a migration"):
        await calling(ingress)
    assert await ingress.accept()
    assert ingress.backlog.calls.rows == 0

    ingress.scheduler.set_pause(function_id, None)
    again = calling(ingress)
    await asyncio.sleep(0)
    assert ingress.backlog.calls.rows == 1
    again.cancel()


async def test_calls_that_wait_when_their_function_is_paused_are_refused(ingress: Ingress) -> None:
    (function_id,) = {function.function_id for function in ingress.house.catalog.all()}
    calls = [calling(ingress) for _ in range(3)]
    await asyncio.sleep(0)
    assert ingress.backlog.calls.rows == 3

    ingress.intake.refuse_calls(function_id)  # not paused
    assert ingress.backlog.calls.rows == 3
    ingress.scheduler.set_pause(function_id, "now")
    ingress.intake.refuse_calls(function_id)

    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [FunctionPaused] * 3
    assert (ingress.scheduler.statistics().waiting_in_memory, ingress.backlog.calls.rows) == (0, 0)


async def test_each_request_of_a_batch_is_accepted_or_refused_alone(ingress: Ingress) -> None:
    requests = [
        Request(function=urn(), payload=b"1"),
        Request(function=urn(), payload=b"2", priority=10),
        Request(function=urn(), payload=b"3", idempotency_key="k"),
        Request(function=urn(), payload=b"3", idempotency_key="k"),
        Request(function=urn(), payload=b"4", idempotency_key="k"),
    ]

    first, invalid, keyed, repeated, conflict = await ingress.intake.accept_each(requests)

    assert isinstance(invalid, InvalidField)
    assert isinstance(conflict, IdempotencyConflict)
    assert keyed == repeated != first
    assert sorted(row.invocation.request_id for row in ingress.storage.rows.values()) == sorted(
        {str(first), str(keyed)}
    )
    assert (ingress.backlog.rows, ingress.backlog.size) == (2, 2)
    assert ingress.intake.statistics().accepted == {"API": 2}
    assert ingress.intake.statistics().refused == {"InvalidField": 1, "IdempotencyConflict": 1}


async def test_a_batch_that_cannot_be_stored_leaves_no_trace(ingress: Ingress) -> None:
    ingress.storage.fail()

    with pytest.raises(NotStored):
        await ingress.intake.accept_each([Request(function=urn(), payload=b"1")] * 3)

    assert (ingress.backlog.rows, ingress.backlog.size) == (0, 0)
    assert ingress.intake.statistics().refused == {"NotStored": 3}
