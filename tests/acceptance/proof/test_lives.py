"""Engines under load that are killed, or whose calls fail: every promise is kept."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from bench.proof.faults import ERRORS, Origin, fail_starts, fail_under_load, faults_of_starts, sample
from bench.proof.lives import Violation, kill_again, lives, until
from bench.proof.recording import Calls
from bench.proof.states import Recording

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
