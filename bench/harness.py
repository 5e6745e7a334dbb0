"""Harness: runs the rounds of a scenario, computes the medians of its figures, and compares them with targets."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from msgspec import Struct

Progress = Callable[[str], None]  #: prints a progress message
Round = dict[str, float]  #: figures of one round, by name


class Options(Struct, frozen=True, kw_only=True):
    seconds: float = 3.0  #: duration of load per cell
    rounds: int = 3
    scale: float = 1.0  #: fraction of the full backlogs and counts
    directory: str = ""  #: parent of the data directories; empty: the system's temporary directory
    profile: str = ""  #: file for the profile of the engine; empty: none
    states: int = 1000  #: crash states of the proof
    deaths: int = 50  #: deaths of the proof
    faults: int = 100  #: failing calls of the proof, at the start and under load
    pages: int = 60  #: cold trials of the proof, each of one bad page
    hours: float = 1000.0  #: simulated hours of the proof
    seed: int = 1  #: first seed of the proof, and the one of the chaos
    lease: float = 3.0  #: seconds of the nodes' lease in the chaos
    local: str = "never"  #: whether functions run on the engine's machine in the chaos, too
    ray: bool = False  #: chaos on a Ray cluster of two nodes on loopback

    def scaled(self, number: int) -> int:
        return max(10, int(number * self.scale))


class Figure(Struct, frozen=True, kw_only=True):
    """Declaration of a measured figure, with an optional target."""

    name: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    required: bool = False  #: the command fails if the figure misses its target

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:,g}"
        return f"≤ {self.at_most:,g}" if self.at_most is not None else ""

    def met(self, value: float) -> bool | None:
        """Return whether the value meets the target; None if there is no target."""
        if self.at_least is not None:
            return value >= self.at_least
        return value <= self.at_most if self.at_most is not None else None


class Scenario(Struct, frozen=True, kw_only=True):
    """Benchmark scenario with its figures.

    The generator ``rounds`` yields the values of one round after another, and cleans up when it is closed. It has no
    end unless the scenario has only one round.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    rounds: Callable[[Options, Progress], Generator[Round, None, None]]
    note: str = ""


class Measured(Struct, frozen=True, kw_only=True):
    """Figure with its measured values from all rounds of a scenario."""

    name: str
    unit: str
    median: float
    lowest: float
    highest: float
    values: tuple[float, ...]
    target: str
    met: bool | None
    required: bool = False


def run(scenario: Scenario, options: Options, progress: Progress) -> list[Measured]:
    rounds: list[Round] = []
    with closing(scenario.rounds(options, progress)) as source:
        for measured in islice(source, options.rounds):
            rounds.append(measured)
            progress(f"{scenario.name}: round {len(rounds)} of {options.rounds} done")
    return summarise(scenario.figures, rounds)


def summarise(figures: Sequence[Figure], rounds: Sequence[Round]) -> list[Measured]:
    """Return the figures with their values from all rounds, in the order of ``figures``.

    Figures that the first round did not measure are left out. Raises ValueError if a round has a value that no figure
    declares.
    """
    unknown = {name for values in rounds for name in values} - {figure.name for figure in figures}
    if unknown:
        raise ValueError(f"undeclared figures: {', '.join(sorted(unknown))}")
    return [
        _measured(f, [values[f.name] for values in rounds if f.name in values]) for f in figures if f.name in rounds[0]
    ]


def _measured(figure: Figure, values: Sequence[float]) -> Measured:
    median = statistics.median(values)
    return Measured(
        name=figure.name,
        unit=figure.unit,
        median=median,
        lowest=min(values),
        highest=max(values),
        values=tuple(values),
        target=figure.target,
        met=figure.met(median),
        required=figure.required,
    )


@contextmanager
def scratch(options: Options) -> Iterator[Path]:
    """Yield an empty directory for a scenario's files, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="functiond-bench-", dir=options.directory or None) as name:
        yield Path(name)
