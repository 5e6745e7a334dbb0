"""Recording of an engine that is shared by the tests of the proof, also by those of other test processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bench.proof.states import Recording, load, record
from tests.support.programs import needs

SEED, REQUESTS, DEATHS = 5, 250, 1


@pytest.fixture(scope="package")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Record an engine, unless another process of this test run has done that."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "recorded"
    with (shared / "recorded.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "origin.json").exists():
            return load(folder)
        folder.mkdir()
        return record(folder, SEED, REQUESTS, DEATHS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the proof as long; its recorder is compiled with gcc."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.long)
            item.add_marker(needs("gcc"))
