"""Soak of a real engine, short: nothing is left behind, and everything that was accepted has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.harness import Options, run
from bench.soak import SCENARIO

SECONDS = 12.0
#: Percent by which memory may grow in a short soak, in which the caches of the engine still fill.
GROWTH = 50.0


@pytest.mark.long
def test_an_engine_under_mixed_load_leaves_nothing_behind(tmp_path: Path) -> None:
    options = Options(seconds=SECONDS, rounds=1, directory=str(tmp_path))

    found = {one.name: one.median for one in run(SCENARIO, options, print)}

    assert found["accepted"] > 0
    assert found["kills"] > 0
    assert found["memory growth"] < GROWTH
    assert found["descriptors before"] > 0
    zero = ("not ended", "processes left", "control groups left", "temporary files left")
    assert {name: found[name] for name in zero if found[name]} == {}
    assert found["descriptors more"] <= 0
