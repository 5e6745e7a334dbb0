"""Scenario ``chaos``: an engine with nodes under load, while agents, supervisors, engine, network and Ray fail.

Runs write signs of life to a file, so that two runs of one invocation at a time are seen exactly.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path
from random import Random

from msgspec import Struct, field

from bench.agents import MEMORY, descendants, states, wait_for
from bench.chaos.checker import check_records, instances_of, left_behind, read_runs
from bench.chaos.cluster import Cluster, cluster
from bench.chaos.faults import DECK, Faults, Pace
from bench.chaos.ray import RAY_DECK, RAY_PACE, RayFaults, RayNodes, ray_nodes
from bench.chaos.work import Clients, deploy
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.proof.scenario import print_line
from bench.server import ServerFailed, until
from bench.soak.remains import marker_of as engine_marker
from engine.storage.data_directory import marker_of

_DRAINED, _RETURNED, _SETTLED = 90.0, 45.0, 3.0  #: seconds that the end of all work and the nodes get
_LIMIT = 10  #: violations of one kind that are printed
PACE = Pace()


class Report(Struct):
    faults: Counter[str] = field(default_factory=Counter[str])
    invocations: int = 0
    unanswered: int = 0
    runs: int = 0
    losses: int = 0
    most_losses: int = 0
    given_up: int = 0
    longest_pause: float = 0.0
    drained: float = 0.0  #: seconds from the last fault to the end of all work
    returned: float = 0.0  #: seconds from the last fault until all nodes were ready
    overlaps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  #: records of invocations
    left: list[str] = field(default_factory=list)  #: on nodes, and differences between grants and instances
    problems: list[str] = field(default_factory=list)  #: exits that nobody caused

    @property
    def violations(self) -> list[str]:
        return [*self.overlaps, *self.wrong, *self.left, *self.problems]


def survive(
    folder: Path,
    deck: dict[str, int],
    progress: Progress,
    *,
    seed: int,
    lease: float,
    local: str,
    pace: Pace = PACE,
    ray: bool = False,
) -> Report:
    """Inflict all faults of the deck on a cluster under load, and check everything afterwards."""
    report, runs_file = Report(), folder / "runs"
    runs_file.touch()
    with (ray_nodes if ray else cluster)(folder, lease=lease, local=local) as running:
        until(running.ready, "the nodes did not join")
        clients = Clients(deploy(running.server, runs_file), running.server.port)
        drawn = clients, Random(seed), pace
        faults = RayFaults(running, *drawn) if isinstance(running, RayNodes) else Faults(running, *drawn)
        with running.watching():
            try:
                began = time.monotonic()
                with clients.sending(pace.rate, seed):
                    for kind, detail in faults.inflict(deck):
                        report.faults[kind] += 1
                        at, number = time.monotonic() - began, f"{report.faults.total()} of {sum(deck.values())}"
                        accepted = f"{len(clients.accepted)} accepted"
                        progress(f"chaos: {at:.0f} s, {number}: {kind} ({detail}); {accepted}")
                    faults.heal()
                    time.sleep(pace.gap[0])
            finally:
                faults.heal()
            _wait_for_end(running, clients, report, progress)
            _check_grants(running, report)
            runs = read_runs(runs_file)
            records = check_records(running.server, clients.accepted, runs)
        _check_rest(running, report)
        report.problems += running.problems
    report.invocations, report.unanswered = len(clients.accepted), clients.unanswered
    report.runs, report.longest_pause = runs.count, runs.longest_pause
    report.losses, report.most_losses, report.given_up = records.losses, records.most_losses, records.given_up
    report.overlaps, report.wrong = list(runs.overlaps()), records.problems
    return report


def _wait_for_end(running: Cluster, clients: Clients, report: Report, progress: Progress) -> None:
    """Wait until all work has ended and all nodes are ready."""
    progress(f"chaos: all faults are over; waiting for the end of {len(clients.accepted)} invocations")
    began = time.monotonic()

    def idle() -> bool:
        paths = {one.function for one in clients.accepted}
        return not any(
            running.server.call("GET", f"{path}/active-async-invocations?limit=1")["count"] for path in paths
        )

    for true, seconds, name in ((running.ready, _RETURNED, "returned"), (idle, _DRAINED, "drained")):
        if not wait_for(true, seconds):
            report.left.append(f"not {name} after {seconds:g} s: {states(running.server)}")
        setattr(report, name, time.monotonic() - began)


def _check_grants(running: Cluster, report: Report) -> None:
    """Check that each node has as many instances as it has grants for, as soon as nothing changes any more."""
    differences: list[str] = []

    def equal() -> bool:
        nodes = states(running.server)
        differences.clear()
        for agent, _ in running.members:
            own, alive = [node for node in nodes if agent.owns(node)], instances_of(agent)
            granted, known = (sum(node[count] for node in own) for count in ("memory_used", "instances"))
            if not granted // MEMORY == known == alive:
                differences.append(f"{agent.name}: {granted} MB granted, {known} instances, {alive} processes")
        return not differences

    if not wait_for(equal, _SETTLED):
        report.left += differences


def _check_rest(running: Cluster, report: Report) -> None:
    """Stop the engine, then the supervisors. Nothing may be left of them."""
    folders = [(running.data, engine_marker(running.server.pid), descendants(running.server.pid))]
    folders += [(one.folder, marker_of(one.folder, "agent"), descendants(one.pid)) for one, _ in running.members]
    running.server.stop()
    if code := running.server.wait(0):
        report.left.append(f"the engine exited with {code} after SIGTERM:\n{running.server.log[-3000:]}")
    for agent, _ in running.members:
        agent.stop()
        if agent.exit_code:
            report.left.append(f"the supervisor of {agent.name} exited with {agent.exit_code} after SIGTERM")
    for folder, marker, processes in folders:
        report.left += left_behind(folder, marker, processes)
    report.left += running.left()


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    cards, pace = (RAY_DECK, RAY_PACE) if options.ray else (DECK, PACE)
    deck = {kind: max(1, round(count * options.scale)) for kind, count in cards.items()}
    run = partial(survive, seed=options.seed, lease=options.lease, local=options.local, pace=pace, ray=options.ray)
    try:
        with scratch(options) as folder:
            report = run(folder, deck, progress)
    except ServerFailed as failure:
        raise ServerFailed(f"{failure} (seed {options.seed})") from failure
    for violations in (report.overlaps, report.wrong, report.left, report.problems):
        for violation in violations[:_LIMIT]:
            print_line(f"chaos: violation, seed {options.seed}: {violation}")
    yield {
        "seed": options.seed,
        **report.faults,
        "faults": report.faults.total(),
        "invocations": report.invocations,
        "unanswered": report.unanswered,
        "runs": report.runs,
        "losses": report.losses,
        "most losses": report.most_losses,
        "given up": report.given_up,
        "longest pause": report.longest_pause,
        "nodes back": report.returned,
        "all ended": report.drained,
        "overlaps": len(report.overlaps),
        "wrong ends": len(report.wrong),
        "left behind": len(report.left),
        "violations": len(report.violations),
    }


SCENARIO = Scenario(
    name="chaos",
    title="functions on nodes, while agents, supervisors, the engine and the network fail",
    figures=(
        Figure(name="seed", unit="of all faults"),
        *(Figure(name=kind, unit="faults") for kind in {**DECK, **RAY_DECK}),
        Figure(name="faults", unit="in all"),
        Figure(name="invocations", unit="accepted"),
        Figure(name="unanswered", unit="requests, which promise nothing"),
        Figure(name="runs", unit="begun"),
        Figure(name="losses", unit="attempts that ended with their node"),
        Figure(name="most losses", unit="of one invocation"),
        Figure(name="given up", unit="after ten losses", at_most=0),
        Figure(name="longest pause", unit="s without any sign of life"),
        Figure(name="nodes back", unit="s after the last fault"),
        Figure(name="all ended", unit="s after the last fault"),
        Figure(name="overlaps", unit="two runs of one id at a time", at_most=0, required=True),
        Figure(name="wrong ends", unit="not one success after losses only", at_most=0, required=True),
        Figure(name="left behind", unit="on nodes", at_most=0, required=True),
        Figure(name="violations", unit="in all", at_most=0, required=True),
    ),
    rounds=rounds,
    note="each violation is printed with the seed",
)
