"""Damaged data directories: each ends as its case says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.proof.damage import CASES, Case, Sources, prepare_sources, run_cases
from bench.proof.states import Recording


@pytest.fixture(scope="module")
def sources(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return prepare_sources(tmp_path_factory.mktemp("damage"), Path(recording.data))


def test_each_damaged_directory_ends_as_its_case_says(sources: Sources) -> None:
    results = list(run_cases(sources, start=False))

    assert len(results) == len([case for case in CASES if not case.read])
    assert [str(violation) for violations in results for violation in violations] == []


def test_another_end_than_the_expected_one_is_found(sources: Sources) -> None:
    wrong = [
        Case(name="nothing is refused", damage=lambda data, sources: None, refusal="damaged"),
        Case(name="a loss goes on", damage=lambda data, sources: (data / "journal.db").unlink()),
    ]

    assert [len(violations) for violations in run_cases(sources, wrong, start=False)] == [1, 1]
