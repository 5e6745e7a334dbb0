"""Faults of agents, supervisors, the engine and the network under load; ``python -m bench chaos`` inflicts more."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos.faults import Pace
from bench.chaos.scenario import survive

#: One fault of each main kind, and two cuts.
DECK = {
    "kill agent": 1,
    "kill supervisor": 1,
    "kill engine": 1,
    "stop agent": 1,
    "stop engine": 1,
    "cut": 1,
    "cut to engine": 1,
}


@pytest.mark.long
@pytest.mark.timeout(180)
def test_each_invocation_ends_once_and_no_two_of_its_runs_overlap(tmp_path: Path) -> None:
    pace = Pace(gap=(0.5, 1.5), longest=3.0)
    report = survive(tmp_path, DECK, print, seed=5, lease=1.0, local="never", pace=pace)

    assert report.violations == []
    assert report.faults == DECK
    assert report.invocations > 0
    assert report.runs >= report.invocations
