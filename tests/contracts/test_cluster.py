"""Contract of clusters: an engine alone owns all work until it is lost."""

from __future__ import annotations

import anyio

from engine.model.identity import SLOT_BITS
from tests.contracts.storage import Opened


async def test_the_slot_fits_into_a_key(opened: Opened) -> None:
    async with opened() as storage:
        assert 0 <= storage.cluster.slot < 1 << SLOT_BITS


async def test_an_engine_alone_owns_all_work(opened: Opened) -> None:
    async with opened() as storage:
        assert storage.cluster.owns("a trigger")
        assert storage.cluster.owns("another trigger")


async def test_an_engine_alone_stays_a_member(opened: Opened) -> None:
    async with opened() as storage:
        with anyio.move_on_after(0.01) as waited:
            await storage.cluster.lost()

        assert waited.cancelled_caught
        assert not storage.broken
