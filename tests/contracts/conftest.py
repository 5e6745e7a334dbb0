from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.storage import KINDS, Opened


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Return an opener of a storage of each kind."""
    return KINDS[request.param](tmp_path)
