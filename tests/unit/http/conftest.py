from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.http_app import Api, serve
from tests.support.triggering import House
from tests.support.waiting import in_own_task


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Serve an API without functions."""
    async with serve(tmp_path) as api:
        yield api


@pytest.fixture
async def hello(api: Api) -> None:
    """Create the function hello."""
    await api.create()


@pytest.fixture
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """Run the engine that the test's module describes in ``console``."""
    async with in_own_task(request.module.console(tmp_path)) as opened:
        yield opened


@pytest.fixture
def place(opened: tuple[House, httpx.AsyncClient]) -> House:
    return opened[0]


@pytest.fixture
def client(opened: tuple[House, httpx.AsyncClient]) -> httpx.AsyncClient:
    return opened[1]
