"""What a scenario is, how its rounds are run, and how figures come of them: medians, and targets to hold them to."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from msgspec import Struct

Say = Callable[[str], None]  #: tells people how far it is
Round = dict[str, float]  #: figures of one round, by name


class Options(Struct, frozen=True, kw_only=True):
    seconds: float = 3.0  #: of load, per cell
    rounds: int = 3
    scale: float = 1.0  #: share of the full sizes: backlogs, counts
    directory: str = ""  #: where data directories are made; empty: the system's place for temporary files
    profile: str = ""  #: file for the profile of the engine; empty: none

    def scaled(self, number: int) -> int:
        return max(10, int(number * self.scale))


class Figure(Struct, frozen=True, kw_only=True):
    """One thing that is measured; without a target it only informs."""

    name: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:,g}"
        return f"≤ {self.at_most:,g}" if self.at_most is not None else ""

    def met(self, value: float) -> bool | None:
        """None if there is no target."""
        if self.at_least is not None:
            return value >= self.at_least
        return value <= self.at_most if self.at_most is not None else None


class Scenario(Struct, frozen=True, kw_only=True):
    """``rounds`` yields one Round after another, as long as it is asked; what it set up ends with it."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    rounds: Callable[[Options, Say], Generator[Round, None, None]]
    note: str = ""


class Measured(Struct, frozen=True, kw_only=True):
    """A figure over all rounds."""

    name: str
    unit: str
    median: float
    lowest: float
    highest: float
    values: tuple[float, ...]
    target: str
    met: bool | None


def run(scenario: Scenario, options: Options, say: Say) -> list[Measured]:
    rounds: list[Round] = []
    with closing(scenario.rounds(options, say)) as source:
        for found in islice(source, options.rounds):
            rounds.append(found)
            say(f"{scenario.name}: round {len(rounds)} of {options.rounds} done")
    return summarise(scenario.figures, rounds)


def summarise(figures: Sequence[Figure], rounds: Sequence[Round]) -> list[Measured]:
    """In the order of ``figures``; those that no round gave are left out. An unknown name is a mistake."""
    unknown = {name for found in rounds for name in found} - {figure.name for figure in figures}
    if unknown:
        raise ValueError(f"figures without a declaration: {', '.join(sorted(unknown))}")
    return [
        _measured(f, [found[f.name] for found in rounds if f.name in found]) for f in figures if f.name in rounds[0]
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
    )


@contextmanager
def scratch(options: Options) -> Iterator[Path]:
    """An empty directory, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="functiond-bench-", dir=options.directory or None) as name:
        yield Path(name)
