"""Corrections of due times beside damaged pages."""

from __future__ import annotations

from pathlib import Path

import anyio

from engine.maintenance.delay_corrector import DelayCorrector
from engine.model.clock import SystemClock
from tests.contracts.storage import NOW
from tests.support.damage import ROWS, kept, ranges, storing


async def test_due_times_on_other_pages_are_corrected(tmp_path: Path) -> None:
    data = await kept(tmp_path, delayed=True, due_at=NOW + 1e9 + 0.1, rank=NOW + 0.3, attempt=2)
    lost = data.smash("invocation")

    async with storing(tmp_path) as storage:
        changed = 0
        while True:
            rows, next_due = await storage.journal.correct_due(NOW + 0.1, NOW, 16)
            if not rows:
                break
            changed += rows

        assert next_due == NOW + 0.1
        assert ranges(storage).keys() == {"invocation"}
        # A change of a row beside the page may need the page.
        assert changed >= ROWS - 2 * len(lost)


async def test_a_correction_goes_on_after_a_step_with_rows_beside_a_damaged_page(tmp_path: Path) -> None:
    # Due times without fractions take less room, so that rows grow and need the pages beside their own.
    data = await kept(tmp_path, 4 * ROWS, delayed=True, due_at=NOW + 1e9, rank=NOW, attempt=2)
    lost = data.smash("invocation")
    late = "SELECT count(*) FROM invocation INDEXED BY delayed WHERE state = 1 AND due >= ?"

    async with storing(tmp_path) as storage, anyio.create_task_group() as tasks:
        await tasks.start(DelayCorrector(storage.journal, SystemClock(), wait=0.0).run)
        with anyio.fail_after(60):
            while True:
                [left] = await storage.writer.call(lambda db: db.execute(late, (NOW + 1e9,)).fetchone())
                if left <= 4 * len(lost):
                    break
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
