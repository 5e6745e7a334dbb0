"""Run of the proof on mutants of the engine: each must be caught, and an unchanged copy must pass.

Each patch is applied to a copy of the sources in a temporary folder, from which the trial's process imports the engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from bench.proof.lives import temporary
from bench.proof.mutants import MUTANTS, Mutant

SOURCES = Path(__file__).parents[2]
PACKAGES = ("engine", "plugins", "bench", "tests/doubles")
MAX_SECONDS = 600  #: of one trial
CONTROL = "unchanged"


class Result(Struct, frozen=True, kw_only=True):
    """Result of a mutant, or of one trial of the unchanged copy."""

    name: str
    right: bool  #: the mutant was caught, or the unchanged copy passed
    seconds: float
    text: str  #: first violation, or why there is no result


def patched(mutant: Mutant) -> str:
    """Return the source of the mutant's module. Raises ValueError unless the replaced text occurs once in it."""
    source = (SOURCES / mutant.module).read_text()
    if source.count(mutant.old) != 1:
        raise ValueError(f"the mutant {mutant.name!r} replaces a text that {mutant.module} has not once")
    return source.replace(mutant.old, mutant.new)


def run(names: Sequence[str] = ()) -> int:
    """Run the mutants with these names, or all, and the unchanged copy. Return 1 unless all results are right."""
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    began = time.perf_counter()
    with temporary() as folder, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        control = _copy(folder / "control")
        trials = sorted({(mutant.trial, seed) for mutant in mutants for seed in mutant.seeds}, reverse=True)
        passing = [pool.submit(_pass, control, trial, seed) for trial, seed in trials]
        caught = [pool.submit(_catch, folder / str(number), mutant) for number, mutant in enumerate(mutants)]
        results = [_shown(future.result()) for future in [*passing, *caught]]
    wrong = [result.name for result in results if not result.right]
    print(f"{len(mutants)} mutants, {len(trials)} trials of the unchanged copy, {time.perf_counter() - began:.0f} s")
    for name in wrong:
        print(f"wrong: {name}")
    return 1 if wrong else 0


def _shown(result: Result) -> Result:
    mark = "right" if result.right else "WRONG"
    print(f"{mark}  {result.seconds:4.0f} s  {result.name}: {result.text[:150]}", flush=True)
    return result


def _pass(folder: Path, trial: str, seed: int) -> Result:
    began, (code, text) = time.perf_counter(), _try(folder, trial, seed)
    name = f"{CONTROL}, {trial} {seed}"
    return Result(name=name, right=code == 0, seconds=time.perf_counter() - began, text=text or "no violation")


def _catch(folder: Path, mutant: Mutant) -> Result:
    began, code, text = time.perf_counter(), 0, ""
    _copy(folder)
    (folder / mutant.module).write_text(patched(mutant))
    for seed in mutant.seeds:
        code, text = _try(folder, mutant.trial, seed)
        if code:
            break
    shutil.rmtree(folder)
    seconds = time.perf_counter() - began
    return Result(name=mutant.name, right=code == 1, seconds=seconds, text=text or f"not caught: {mutant.promise}")


def _copy(folder: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(SOURCES / name, folder / name)
    (folder / "tests" / "__init__.py").touch()
    return folder


def _try(folder: Path, trial: str, seed: int) -> tuple[int, str]:
    """Run a trial on the sources in a folder. Return 0, 1 or another number for an error, and the first line."""
    program = [sys.executable, "-m", "bench.proof.trials", trial, str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return 2, f"the trial did not end in {MAX_SECONDS} s"
    if done.returncode not in (0, 1) or done.stderr:
        return 2, done.stderr.strip().rpartition("\n")[2] or f"the trial ended with {done.returncode}"
    return done.returncode, done.stdout.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
