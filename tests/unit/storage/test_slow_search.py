"""Searches on a slow disk: each step comes closer to the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.protocols import Selection
from engine.storage.sqlite import record_search
from tests.support.damage import kept, storing


async def test_a_step_without_time_passes_empty_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_search, "BUDGET", 0.0)
    data = await kept(tmp_path, 20)  # none runs, so the first part of the list is empty
    async with storing(tmp_path) as storage:
        first = await storage.records.search(Selection(function_id=1), None, 40)
        assert first.last is not None
        rest = await storage.records.search(Selection(function_id=1), first.last, 40)

    assert [one.key for one in first.records] == data.keys(1)
    assert (rest.records, rest.more) == ((), False)
