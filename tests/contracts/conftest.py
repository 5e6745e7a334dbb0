from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.protocols import Storage
from tests.contracts.rigs.base import Rig
from tests.contracts.scenes import RIGS, params_of
from tests.support.storages import KINDS, Opened
from tests.support.waiting import in_own_task


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Return an opener of a storage of each kind."""
    return KINDS[request.param](tmp_path)


@pytest.fixture
async def storage(opened: Opened) -> AsyncIterator[Storage]:
    """Open a storage of each kind once."""
    async with in_own_task(opened()) as storage:
        yield storage


@pytest.fixture(params=params_of(RIGS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    made: Rig = request.param(tmp_path)
    async with in_own_task(made.opened()):
        yield made
