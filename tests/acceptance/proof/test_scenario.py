"""Proof as a command: it counts its checks, prints violations, and returns 1 if there are any."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.proof import promises as p
from bench.proof import scenario
from bench.proof.simulation import simulate
from bench.proof.states import Recording, keep, load

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
