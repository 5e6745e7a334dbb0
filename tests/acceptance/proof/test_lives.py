"""Engines under load that are killed, or whose calls fail: every promise is kept."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from bench.proof.faults import fail_under_load
from bench.proof.lives import Violation, kill_again, lives, until
from bench.proof.recording import Calls

SEED, KILLS, FAULTS = 7, 3, 12


def problems(found: Iterable[list[Violation]]) -> list[str]:
    return [str(one) for violations in found for one in violations]


def test_every_promise_is_kept_whenever_the_engine_is_killed(tmp_path: Path) -> None:
    found = list(kill_again(tmp_path, SEED, KILLS))

    assert len(found) == KILLS
    assert problems(found) == []


def test_every_promise_is_kept_whichever_call_fails_under_load(tmp_path: Path) -> None:
    found = list(fail_under_load(tmp_path, SEED, FAULTS))

    assert len(found) == FAULTS
    assert problems(found) == []


def test_the_chosen_calls_fail(tmp_path: Path) -> None:
    failed = []
    with lives(tmp_path, SEED) as engine, engine.clients.sending(SEED):
        for kind in (Calls.WRITE, Calls.OPEN, Calls.SYNC):
            engine.recorder.fail(kind, 3, errno.EIO)
            assert until(lambda: engine.recorder.failed is not None)
            failed.append(engine.recorder.failed)

    assert [one.call for one in failed if one] in (["write", "open", "fsync"], ["write", "mkdir", "fsync"])
    assert all(one.path.startswith("/") for one in failed if one)
