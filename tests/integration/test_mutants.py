"""Mutants of the engine on which the proof is tried: each patch still applies, and each is a patch of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.proof import mutation
from bench.proof.mutants import MUTANTS, Mutant
from bench.proof.trials import TRIALS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_that_a_mutant_replaces_occurs_once(mutant: Mutant) -> None:
    source = mutation.patched(mutant)

    compile(source, mutant.module, "exec")
    assert source != (mutation.SOURCES / mutant.module).read_text()
    assert mutant.trial in TRIALS


def test_no_two_mutants_are_the_same() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(
        {(mutant.module, mutant.old, mutant.new) for mutant in MUTANTS}
    )
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def test_a_mutant_that_no_trial_catches_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def passing(folder: Path, trial: str, seed: int) -> tuple[int, str]:
        assert (folder / MUTANTS[0].module).read_text()
        return 0, ""

    monkeypatch.setattr(mutation, "_try", passing)

    assert mutation.run([MUTANTS[0].name]) == 1
    assert f"wrong: {MUTANTS[0].name}" in capsys.readouterr().out
