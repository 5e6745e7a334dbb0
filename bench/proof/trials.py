"""Trials of the proof on whatever engine is on the path: ``python -m bench.proof.trials TRIAL SEED``.

A trial prints the violations that it has found, and returns 1 if there are any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from bench.proof.backups import check_backups
from bench.proof.simulation import simulate

#: Names of the trials: simulations on tables and on the real storage, and crash states of backups.
SIMULATED, STORED, BACKUPS = "simulated", "stored", "backups"
HOURS = {SIMULATED: 40.0, STORED: 60.0}


def _simulated(seed: int, *, stored: bool) -> Iterator[str]:
    yield from simulate(seed, HOURS[STORED if stored else SIMULATED], first_only=True, stored=stored).violations


def _backups(seed: int) -> Iterator[str]:
    for violations in check_backups(seed):
        yield from map(str, violations)
        if violations:
            return


TRIALS: dict[str, Callable[[int], Iterator[str]]] = {
    SIMULATED: lambda seed: _simulated(seed, stored=False),
    STORED: lambda seed: _simulated(seed, stored=True),
    BACKUPS: _backups,
}


def main(trial: str, seed: str) -> int:
    problems = list(TRIALS[trial](int(seed)))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
