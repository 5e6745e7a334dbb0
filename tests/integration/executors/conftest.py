"""Pool of the functions of a test module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.executors.pool import Pool
from tests.support.executing import pool


@pytest.fixture
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    """Open a pool with the code ``SOURCE`` of the module, and with its ``NODE`` code and options ``POOL``, if any."""
    module = request.module
    async with pool(tmp_path, module.SOURCE, **getattr(module, "POOL", {})) as opened:
        (tmp_path / "code" / "index.js").write_text(getattr(module, "NODE", ""))
        yield opened
