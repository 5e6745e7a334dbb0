"""Command line of the benchmarks: ``python -m bench [scenario …]``. Reports figures and the machine's properties."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench import report
from bench.harness import Options, Progress, Scenario, run
from bench.machine import inspect_machine
from bench.proof.mutation import run as run_mutants
from bench.server import ServerFailed

WIDTH = 120  #: columns of tables when the output is not a terminal
#: Options of the proof.
PROOF = {
    "states": "crash states",
    "deaths": "deaths under load",
    "faults": "failing calls, at the start and under load",
    "pages": "cold starts, each on one bad page",
    "hours": "simulated hours",
    "seed": "first seed",
}
#: Options of the chaos.
CHAOS = {"lease": "seconds of the nodes' lease", "local": "first, fallback or never"}
ON_REQUEST = (
    "chaos",
    "children",
    "django_orm",
    "groups",
    "many",
    "nodes_on_ray",
    "proof",
    "purge",
    "soak",
    "web",
)  #: scenarios that run only if they are named
SCENARIOS = (
    "accept",
    "accept_batch",
    "calls",
    "intake",
    "end_to_end",
    "status_log",
    "forward",
    "latency",
    "recovery",
    "backup",
    "backlog",
    "idle",
    "cold_start",
    "dispatch",
    "fairness",
    "hostile",
    "nodes",
)


def find(name: str) -> Scenario:
    scenario = import_module(f"bench.{name}").SCENARIO
    assert isinstance(scenario, Scenario)
    return scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios that the arguments name, or all if they name none.

    Return 1 if a scenario could not be measured or a required figure misses its target. Otherwise return 0, even if
    other figures miss their targets.
    """
    given = _parser().parse_args(arguments)
    if given.mutants is not None:
        return run_mutants(given.mutants)
    options = Options(
        seconds=given.seconds,
        rounds=given.rounds,
        scale=given.scale,
        directory=given.directory,
        profile=given.profile,
        states=given.states,
        deaths=given.deaths,
        faults=given.faults,
        pages=given.pages,
        hours=given.hours,
        seed=given.seed,
        lease=given.lease,
        local=given.local,
        ray=given.ray,
    )
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    machine = inspect_machine(Path(options.directory or tempfile.gettempdir()))
    report.show_machine(console, machine)
    measured = {}
    for name in given.scenarios or SCENARIOS:
        scenario = find(name)
        try:
            with _progress() as progress:
                measured[name] = run(scenario, options, progress)
        except ServerFailed as failure:
            console.print(f"[red]cannot measure {name}:[/]", escape(str(failure)), highlight=False)
            return 1
        report.show(console, scenario, measured[name])
        if options.profile:
            report.show_profile(console, options.profile)
    if given.json:
        report.write_json(Path(given.json), report.Results(machine=machine, options=options, scenarios=measured))
    missed = (figure for figures in measured.values() for figure in figures if figure.required and not figure.met)
    return int(any(missed))


@contextmanager
def _progress() -> Iterator[Progress]:
    """Yield a function that reports the steps of scenarios on stderr.

    On a terminal one line is updated; otherwise each step has a line.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
    else:
        yield console.print


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure functiond on this machine.")
    named = f"{', '.join(SCENARIOS)} (all), {', '.join(ON_REQUEST)}"
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=named)
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="duration of load per cell (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="number of rounds (%(default)s)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the full backlogs and counts (%(default)s)"
    )
    parser.add_argument("--directory", default="", help="parent of the temporary data directories")
    for scenario, given in (("proof", PROOF), ("chaos", CHAOS)):
        for name, what in given.items():
            default = getattr(defaults, name)
            text = f"{scenario}: {what} (%(default)s)"
            parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    parser.add_argument("--ray", action="store_true", help="chaos: on a Ray cluster of two nodes on loopback")
    mutants = "proof: only try mutants of the engine, these or all, each of which must be caught"
    parser.add_argument("--mutants", nargs="*", metavar="NAME", help=mutants)
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--profile", nargs="?", const="bench.pstats", default="", metavar="FILE", help="run the engine under cProfile"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
