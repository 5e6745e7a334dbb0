from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.storage import KINDS, Storage, storage_of


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return storage_of(request.param, tmp_path)
