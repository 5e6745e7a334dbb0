"""Reads for people, which run beside the writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.protocols import DeliveryFilter, Selection, Storage
from engine.storage.options import StorageOptions
from engine.storage.sqlite import open_sqlite

LOOKS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "records": lambda storage: storage.records.list(Selection(function_id=1)),
    "record": lambda storage: storage.records.get(1),
    "given up": lambda storage: storage.outbox.given_up([1], 0, 10),
    "pending": lambda storage: storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_a_look_at_the_journal_and_a_commit_do_not_wait_for_each_other(tmp_path: Path, look: str) -> None:
    looked = threading.Event()
    async with open_sqlite(StorageOptions(directory=tmp_path)) as storage:
        commit = asyncio.ensure_future(storage.writer.call(lambda db: looked.wait(30)))
        await LOOKS[look](storage)
        looked.set()

        assert await commit
