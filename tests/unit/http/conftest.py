from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.http_app import Api, serve


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Serve an API without functions."""
    async with serve(tmp_path) as api:
        yield api


@pytest.fixture
async def hello(api: Api) -> None:
    """Create the function hello."""
    await api.create()
