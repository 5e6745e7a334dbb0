"""Scenario ``proof``: runs all parts of the proof once, and prints each violation with its seed."""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path

from msgspec import Struct, field
from rich.console import Console

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.proof.backups import check_backups
from bench.proof.cold import cold_trials
from bench.proof.damage import CASES, prepare_sources, run_cases
from bench.proof.faults import KILLED, fail_starts, fail_under_load, faults_of_starts, make_origins, sample
from bench.proof.lives import Violation, kill_again
from bench.proof.simulation import simulate
from bench.proof.states import Recording, check_all, choose, keep, record, start_all

#: Crash states of one recording, and requests of its clients. Further states are of further recordings.
STATES_OF_EACH, REQUESTS = 1000, 300
#: Crash states of each backup, at most.
BACKUP_STATES = 60
#: Crash states for each one that is also opened by a start of the engine.
START_EVERY = 100
#: Hours of one simulation, at most. Longer times are simulated in parts, side by side, which keeps the memory bounded.
HOURS_OF_EACH = 1000.0
#: Simulated hours for each one that is also simulated on the real storage.
STORED_EVERY = 10.0
_SIMULATED = {"simulated": "hours", "simulated invocations": "invocations", "simulated crashes": "crashes"}


class Tally(Struct):
    """Number of checks, and the violations that they found."""

    progress: Progress
    done: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def add(self, what: str, checks: Iterator[list[Violation]]) -> bool:
        """Count the checks, and print the first ten violations. Return whether there are any."""
        before = len(self.violations)
        for violations in checks:
            self.done[what] = self.done.get(what, 0) + 1
            for violation in violations[:10]:
                print_line(f"proof: violation: {violation}")
            self.violations += violations
        return len(self.violations) > before


def print_line(text: str) -> None:
    """Print a line to stderr that stays there, unlike progress messages on a terminal."""
    Console(stderr=True).print(text, soft_wrap=True, markup=False, highlight=False)


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    tally = Tally(progress)
    seeds = range(options.seed, options.seed + -(-options.states // STATES_OF_EACH))
    for number, seed in enumerate(seeds, 1):
        progress(f"proof: crash states, recording {number} of {len(seeds)}, seed {seed}")
        with _folder(options) as folder:
            _check_states(record(folder, seed, REQUESTS), min(STATES_OF_EACH, options.states), tally)
        tally.add("backup states", check_backups(seed, min(BACKUP_STATES, options.states)))
    if options.deaths:
        progress(f"proof: {options.deaths} deaths under load, seed {options.seed}")
        with _folder(options) as folder:
            tally.add("deaths", kill_again(folder, options.seed, options.deaths))
    if options.faults:
        _check_faults(options, tally)
    if options.pages:
        _check_pages(options, tally)
    simulated = _simulate(options, tally)
    yield {"seed": options.seed, **tally.done, **simulated, "violations": len(tally.violations)}


def _simulate(options: Options, tally: Tally) -> Round:
    """Simulate ``options.hours`` in parts of at most ``HOURS_OF_EACH``, each with its own seed."""
    if not options.hours:
        return {}
    parts = math.ceil(options.hours / HOURS_OF_EACH)
    seeds, hours = range(options.seed, options.seed + parts), options.hours / parts
    done = dict.fromkeys(_SIMULATED, 0.0)
    real = partial(simulate, stored=True)
    processes = min(parts, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for report in pool.map(real, seeds, repeat(hours / STORED_EVERY)):
            where = f"simulation on the real storage, seed {report.seed}, {report.hours:g} hours"
            tally.add(
                "stored simulations",
                iter([[Violation(where=where, problem=violation) for violation in report.violations]]),
            )
        for report in pool.map(simulate, seeds, repeat(hours)):
            where = f"simulation, seed {report.seed}, {hours:g} hours"
            tally.add(
                "simulations", iter([[Violation(where=where, problem=violation) for violation in report.violations]])
            )
            done["simulated"] += hours
            done["simulated invocations"] += report.invocations
            done["simulated crashes"] += report.crashes
            tally.progress(
                "proof: simulated " + ", ".join(f"{done[name]:,.0f} {unit}" for name, unit in _SIMULATED.items())
            )
    return done


def _check_states(recording: Recording, count: int, tally: Tally) -> None:
    states, starts = choose(recording, count, count // START_EVERY)
    broken = tally.add("crash states", check_all(recording, states, len(os.sched_getaffinity(0))))
    if tally.add("crash states, started", start_all(recording, starts)) or broken:
        print_line(f"proof: check such a state alone: python -m bench.proof.states {keep(recording)} STATE")


def _check_faults(options: Options, tally: Tally) -> None:
    tally.progress(f"proof: {options.faults} failing calls under load, seed {options.seed}")
    with _folder(options) as folder:
        tally.add("faults under load", fail_under_load(folder, options.seed, options.faults))
    with _folder(options) as folder:
        origins = make_origins(folder, options.seed)
        faults = faults_of_starts(folder, origins)
        chosen = sample(faults, options.faults, options.seed)
        tally.progress(f"proof: {len(chosen)} of {len(faults)} failing calls at the start, seed {options.seed}")
        tally.add("faults at the start", fail_starts(folder, chosen))
        killed = next(origin.data for origin in origins if origin.name == KILLED)
        tally.progress(f"proof: {len(CASES)} damaged directories")
        (folder / "damage").mkdir()
        tally.add("damaged directories", run_cases(prepare_sources(folder / "damage", killed), start=True))


def _check_pages(options: Options, tally: Tally) -> None:
    with _folder(options) as folder:
        for trial in cold_trials(folder, options.seed, options.pages):
            tally.progress(f"proof: {trial}")
            violations = [
                Violation(where=f"seed {options.seed}, {trial}", problem=problem) for problem in trial.problems
            ]
            tally.add("bad pages", iter([violations]))


@contextmanager
def _folder(options: Options) -> Iterator[Path]:
    with scratch(options) as folder:
        yield Path(tempfile.mkdtemp(dir=folder))


SCENARIO = Scenario(
    name="proof",
    title="promises kept by engines that crash, are killed, or whose disk fails",
    figures=(
        Figure(name="seed", unit="first of all seeds"),
        Figure(name="crash states", unit="recovered and checked"),
        Figure(name="crash states, started", unit="opened by a start"),
        Figure(name="backup states", unit="of backups and restores"),
        Figure(name="deaths", unit="kills under load"),
        Figure(name="faults under load", unit="failing calls"),
        Figure(name="faults at the start", unit="failing calls"),
        Figure(name="damaged directories", unit="missing, foreign, damaged files"),
        Figure(name="bad pages", unit="cold starts, each on one bad page"),
        Figure(name="simulations", unit="seeds"),
        Figure(name="stored simulations", unit="seeds, on the real storage"),
        *(Figure(name=name, unit=unit) for name, unit in _SIMULATED.items()),
        Figure(name="violations", unit="broken promises", at_most=0, required=True),
    ),
    rounds=rounds,
    note="each violation is printed with its seed, and a state can be checked alone",
)
