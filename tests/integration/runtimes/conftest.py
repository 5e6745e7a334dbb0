"""Pool of the functions of a test module, and a call of one of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.model import Function, Outcome
from tests.support.executing import invocation, pool


@pytest.fixture
async def run(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a function that runs one of the functions in the ``FILES`` of the module."""
    async with pool(tmp_path, "") as opened:
        for name, text in request.module.FILES.items():
            (tmp_path / "code" / name).write_text(text)

        async def run(asked: Function, event: Any = None) -> Outcome:
            return await opened.execute(asked, invocation(json.dumps(event), alias="live"))

        yield run
