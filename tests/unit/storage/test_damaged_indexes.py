"""Damaged indexes of deliveries and idempotency keys are noted, and rebuilt at the next start."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import NotStored
from engine.model import DestinationSpec
from tests.contracts.storage import NOW, made, settled, success
from tests.support.damage import StoredRows, kept, ranges, rows_of, storing

INDEXES = ("owed_due", "owed_key", "owed_destination", "owed_given_up", "idempotency_expires")
ROWS = 600  #: enough for several pages of each index


async def filled(folder: Path) -> StoredRows:
    """Return a directory with pending and given-up deliveries, and idempotency keys."""
    data = await kept(folder, ROWS, payload=b"{}")
    sink = DestinationSpec(destination="TEST", param="{}")
    async with storing(folder) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in data.invocations))
        due, _ = await storage.outbox.due(NOW + 100, ROWS, ROWS)
        await asyncio.gather(*(storage.outbox.postpone(one, None, "refused") for one in due[: ROWS // 2]))
        keyed = [made(storage, 1, at=NOW) for _ in range(ROWS)]
        await asyncio.gather(*(storage.journal.append(one, idempotency_key=one.request_id) for one in keyed))
    return data


async def used(folder: Path, data: StoredRows) -> dict[str, tuple[int, int]]:
    """Use deliveries and idempotency keys as a running engine does. Return the damaged ranges."""
    async with storing(folder) as storage:
        due, _ = await storage.outbox.due(NOW + 100, ROWS, ROWS)
        with suppress(NotStored):
            await storage.outbox.deliveries_of(data.invocations[0].key)
        for pending in due[:2]:
            with suppress(NotStored):
                await storage.outbox.postpone(pending, None, "refused")
        with suppress(NotStored):
            await storage.journal.append(made(storage, 1, at=NOW), idempotency_key="another")
        assert storage.statistics().failure == ""
        return ranges(storage)


@pytest.mark.parametrize("index", INDEXES)
async def test_a_damaged_index_is_noted_and_rebuilt_at_the_next_start(tmp_path: Path, index: str) -> None:
    data = await filled(tmp_path)
    file = data.file
    for page in data.leaves(index):
        file.smash(page)
    noted = await used(tmp_path, data)

    assert noted == {index: (0, 0)}
    assert await used(tmp_path, data) == {}
    for table in ("owed", "idempotency"):
        assert rows_of(tmp_path, f"PRAGMA integrity_check({table})") == [("ok",)]


async def test_all_damaged_indexes_of_deliveries_are_rebuilt_though_one_was_noted(tmp_path: Path) -> None:
    data = await filled(tmp_path)
    file = data.file
    for page in data.leaves("owed_key"):
        file.smash(page)
    assert await used(tmp_path, data) == {"owed_key": (0, 0)}
    for name in INDEXES:
        if name != "owed_key":
            data.smash(name, 0)

    assert await used(tmp_path, data) == {}


async def test_damaged_idempotency_keys_refuse_only_their_own_events(tmp_path: Path) -> None:
    data = await filled(tmp_path)
    data.smash("idempotency")

    async with storing(tmp_path) as storage:
        answers = [
            await asyncio.gather(
                storage.journal.append(made(storage, 1, at=NOW), idempotency_key=f"{number:03}"), return_exceptions=True
            )
            for number in range(300)
        ]
        refused = [one for [one] in answers if isinstance(one, NotStored)]
        await storage.journal.append(made(storage, 1, at=NOW))

        assert 0 <= len(refused) < 300
        assert ranges(storage) == {"idempotency": (1, 1)}
