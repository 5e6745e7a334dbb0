"""Discarding of invocations whose function is deleted: in steps, counted, retried after write failures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from engine.errors import NotStored, PageDamaged
from engine.functions.catalog import Catalog
from engine.model import Code, State
from engine.model.clock import SystemClock
from engine.model.retry import RetryPolicy
from engine.pipeline import discarder
from engine.pipeline.discarder import Discarder
from engine.protocols import Place, Scan, Selection
from tests.support.waiting import until
from tests.unit.pipeline.test_bulk_cancellation import states
from tests.unit.pipeline.test_dispatcher import Dispatching, dispatching


@asynccontextmanager
async def discarding() -> AsyncIterator[tuple[Dispatching, Discarder]]:
    async with dispatching() as now, anyio.create_task_group() as tasks:
        made = Discarder(
            scheduler=now.scheduler,
            storage=now.storage,
            cancellation=now.dispatcher.cancellation,
            catalog=cast("Catalog", now.functions),
            policy=RetryPolicy(),
            clock=SystemClock(),
        )
        now.scheduler.kept_out.connect(made.note_push)
        await tasks.start(made.run)
        yield now, made
        tasks.cancel_scope.cancel()


async def test_all_that_waits_ends_in_steps_and_others_stay() -> None:
    async with discarding() as (now, made):
        steps = list[int]()
        now.announced.waiting_ended.connect(lambda function_id, end, rows: steps.append(rows))
        running = await now.send()
        await now.running(running)
        gone = [await now.send() for _ in range(250)]
        gone.append(await now.send(delayed=True, due_at=1e12))
        other = await now.send(2)

        made.discard(1)
        await until(lambda: now.backlog.rows == 2)
        now.gate.set()

        assert states(now, gone) == {State.DISCARD}
        assert [await now.end_of(one) for one in (running, other)] == [State.SUCCESS] * 2
        assert steps == [100, 100, 51]
        assert now.dispatcher.statistics().codes[Code.FUNCTION_MISSING] == 251
        assert now.dispatcher.statistics().outcomes["DISCARD"] == 251


async def test_invocations_that_come_during_the_discard_end_too() -> None:
    async with discarding() as (now, made):
        made.discard(1)
        late = [await now.send(), await now.send(delayed=True, due_at=1e12)]
        await until(lambda: now.backlog.rows == 0)

        assert states(now, late) == {State.DISCARD}


@pytest.mark.parametrize(
    ("error", "state"), [(PageDamaged("malformed"), State.WAIT), (NotStored("disk full"), State.DISCARD)]
)
async def test_a_failing_disk_delays_the_discard_and_a_damaged_page_ends_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: State
) -> None:
    monkeypatch.setattr(discarder, "RETRY_DELAY", 0)
    async with discarding() as (now, made):
        await now.running(await now.send())
        first, records, asked = await now.send(), now.storage.records, list[int]()
        waiting = records.waiting

        async def fail_once(selection: Selection, after: Place, limit: int) -> Scan:
            asked.append(selection.function_id)
            if asked == [1]:
                raise error
            return await waiting(selection, after, limit)

        monkeypatch.setattr(records, "waiting", fail_once)
        made.discard(1)
        made.discard(2)
        await until(lambda: 2 in asked)
        now.gate.set()

        assert states(now, [first]) == {state}
