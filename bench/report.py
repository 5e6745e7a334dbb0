"""Reports of a benchmark run: tables of figures in a terminal, and all figures in a JSON file."""

from __future__ import annotations

import pstats
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.harness import Measured, Options, Scenario
from bench.machine import Machine

_VERDICT = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
_LINES = 45
DASH = "\N{EN DASH}"


class Results(Struct, frozen=True, kw_only=True):
    machine: Machine
    options: Options
    scenarios: Mapping[str, Sequence[Measured]]


def show_machine(console: Console, machine: Machine) -> None:
    console.print(
        f"{machine.processor}, {machine.cores} cores, {machine.memory_mb / 1024:.0f} GB; Linux {machine.kernel}; "
        f"Python {machine.python}; SQLite {machine.sqlite}; {machine.filesystem}, fsync {machine.fsync_ms:.2f} ms",
        highlight=False,
    )


def show(console: Console, scenario: Scenario, measured: Sequence[Measured]) -> None:
    table = Table(title=f"{scenario.name}: {scenario.title}", caption=scenario.note or None, title_justify="left")
    table.add_column("figure")
    for heading in ("median", f"min{DASH}max", "target"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("verdict")
    for figure in measured:
        spread = f"{number(figure.lowest)}{DASH}{number(figure.highest)}" if len(figure.values) > 1 else ""
        table.add_row(figure.name, number(figure.median), spread, figure.target, figure.unit, _VERDICT[figure.met])
    console.print(table)


def show_profile(console: Console, file: str) -> None:
    """Print the most expensive functions of the engine's event loop.

    They are sorted by the time in each function without the functions that it calls.
    """
    stats = pstats.Stats(file, stream=console.file)
    stats.sort_stats("tottime").print_stats(_LINES)
    console.print(f"profile kept in {file}", highlight=False)


def write_json(file: Path, results: Results) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def number(value: float) -> str:
    """Format a value with three significant digits, or as an integer from 100 on."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
