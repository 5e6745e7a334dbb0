"""Engines under load that are killed, or whose calls fail, and the command that checks the proof: promises are kept."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.proof import promises as p
from bench.proof import scenario
from bench.proof.faults import ERRORS, Origin, fail_starts, fail_under_load, faults_of_starts, sample
from bench.proof.lives import Violation, kill_again, lives, until
from bench.proof.recording import Calls
from bench.proof.simulation import simulate
from bench.proof.states import Recording, keep, load

SEED, KILLS, FAULTS = 7, 2, 8


def problems(groups: Iterable[list[Violation]]) -> list[str]:
    return [str(violation) for violations in groups for violation in violations]


def test_every_promise_is_kept_whenever_the_engine_is_killed(tmp_path: Path) -> None:
    violations = list(kill_again(tmp_path, SEED, KILLS))

    assert len(violations) == KILLS
    assert problems(violations) == []


def test_every_promise_is_kept_whichever_call_fails_under_load(tmp_path: Path) -> None:
    violations = list(fail_under_load(tmp_path, SEED, FAULTS))

    assert len(violations) == FAULTS
    assert problems(violations) == []


def test_every_promise_is_kept_whichever_call_fails_at_the_start(recording: Recording, tmp_path: Path) -> None:
    new = Origin(name="no directory", data=tmp_path / "none", promises=[])
    killed = Origin(name="a killed engine", data=Path(recording.data), promises=recording.promises)
    faults = faults_of_starts(tmp_path, [new, killed])
    kinds = {(fault.origin.name, fault.kind) for fault in faults}
    chosen = sample(faults, len(kinds), SEED)

    violations = list(fail_starts(tmp_path, chosen))

    assert {kind for name, kind in kinds if name == killed.name} == set(ERRORS)
    assert len(violations) == len(kinds) == len({(fault.origin.name, fault.kind) for fault in chosen})
    assert problems(violations) == []


def test_the_chosen_calls_fail(tmp_path: Path) -> None:
    failed = []
    with lives(tmp_path, SEED) as engine, engine.clients.sending(SEED):
        for kind in (Calls.WRITE, Calls.OPEN, Calls.SYNC):
            engine.recorder.fail(kind, 3, errno.EIO)
            assert until(lambda: engine.recorder.failed is not None)
            failed.append(engine.recorder.failed)

    assert [failure.call for failure in failed if failure] in (["write", "open", "fsync"], ["write", "mkdir", "fsync"])
    assert all(failure.path.startswith("/") for failure in failed if failure)


ONLY_STATES = ("--states=20", "--deaths=0", "--faults=0", "--pages=0", "--hours=0", "--seed=3")


def figures(file: Path) -> dict[str, Any]:
    return {figure["name"]: figure["median"] for figure in json.loads(file.read_text())["scenarios"]["proof"]}


def test_the_command_counts_its_checks(tmp_path: Path) -> None:
    code = main(["proof", *ONLY_STATES, f"--json={tmp_path / 'proof.json'}", f"--directory={tmp_path}"])

    assert figures(tmp_path / "proof.json") == {"seed": 3, "crash states": 20, "backup states": 22, "violations": 0}
    assert code == 0


def test_a_long_simulation_is_divided_into_parts_with_seeds_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenario, "HOURS_OF_EACH", 2.0)
    options = ("--states=0", "--deaths=0", "--faults=0", "--pages=0", "--hours=5", "--seed=3", "--rounds=1")
    code = main(["proof", *options, f"--json={tmp_path / 'proof.json'}", f"--directory={tmp_path}"])

    seen, alone = figures(tmp_path / "proof.json"), [simulate(seed, 5 / 3) for seed in (3, 4, 5)]
    assert seen["simulations"] == seen["stored simulations"] == 3
    assert seen["simulated invocations"] == sum(report.invocations for report in alone)
    assert "simulated 5 hours" in capsys.readouterr().err
    assert code == 0


def test_the_command_fails_with_a_violation(
    tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copy = load(keep(recording))
    p.save([p.Line(text="token-0-0-1-")], copy.folder / "promises.json")
    monkeypatch.setattr(scenario, "record", lambda folder, seed, requests: copy)
    code = main(["proof", *ONLY_STATES, f"--json={tmp_path / 'proof.json'}"])

    assert figures(tmp_path / "proof.json")["violations"] == 20
    assert "the line token-0-0-1- is lost" in capsys.readouterr().err
    assert code == 1
