"""Check of signs of life and records: each accepted invocation ended once, and no two of its runs overlap."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.agents import Agent
from bench.chaos.work import Accepted
from bench.server import Engine
from bench.soak.remains import files_left, groups_left, processes_left
from engine.isolation.limits import ENGINE_VARIABLE
from engine.isolation.processes import marked
from engine.storage.data_directory import marker_of

LOST = 150500  #: code of attempts that ended with their node
MAX_LOSSES = 10  #: after which an invocation ends as FAIL


class Run(Struct):
    """One run of an invocation, by the monotonic clock in nanoseconds."""

    begin: int
    last: int  #: sign of life
    ended: bool = False


class Runs(Struct):
    """All runs that left signs of life."""

    of: dict[str, dict[str, Run]]  #: by the id of their invocation, and their own
    longest_pause: float  #: seconds without any sign of life

    @property
    def count(self) -> int:
        return sum(map(len, self.of.values()))

    def overlaps(self) -> Iterator[str]:
        """Yield a description of each two runs of one invocation that overlap."""
        for request_id, runs in self.of.items():
            ordered = sorted(runs.values(), key=lambda run: run.begin)
            for earlier, later in pairwise(ordered):
                if earlier.last > later.begin:
                    milliseconds = (earlier.last - later.begin) / 1e6
                    yield f"invocation {request_id}: a run began {milliseconds:.0f} ms before the last sign of another"


def read_runs(file: Path) -> Runs:
    runs: dict[str, dict[str, Run]] = {}
    moments: list[int] = []
    for line in file.read_text().splitlines():
        moment, kind, request_id, run = line.split()
        at = int(moment)
        moments.append(at)
        seen = runs.setdefault(request_id, {}).setdefault(run, Run(at, at))
        seen.begin, seen.last = min(seen.begin, at), max(seen.last, at)
        seen.ended = seen.ended or kind == "end"
    pauses = (later - earlier for earlier, later in pairwise(sorted(moments)))
    return Runs(runs, max(pauses, default=0) / 1e9)


class Records(Struct):
    """Counts of the records of accepted invocations, and what is wrong with them."""

    losses: int = 0
    most_losses: int = 0  #: of one invocation
    given_up: int = 0  #: ended as FAIL after too many losses
    problems: list[str] = []


def check_records(server: Engine, accepted: Sequence[Accepted], runs: Runs) -> Records:
    """Read all records. Each must be a success whose result a complete run returned, after losses only."""
    found = Records(problems=[])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for one in accepted:
        connection.request("GET", f"{one.function}/async-invocations/{one.request_id}")
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            found.problems.append(f"invocation {one.request_id}: it was accepted, and there is no record of it")
            continue
        record = json.loads(text)
        losses = sum(1 for attempt in record["attempts"] if attempt["error_code"] == LOST)
        found.losses += losses
        found.most_losses = max(found.most_losses, losses)
        if record["error_code"] == LOST and losses >= MAX_LOSSES:
            found.given_up += 1
            continue
        found.problems += [f"invocation {one.request_id}: {problem}" for problem in _problems(record, runs)]
    connection.close()
    return found


def _problems(record: dict[str, Any], runs: Runs) -> Iterator[str]:
    if record["status"] != "SUCCESS":
        yield f"it is {record['status']} ({record['error_code']} {record['error_message']})"
        return
    run = runs.of.get(record["request_id"], {}).get(record["result"].strip('"'))
    if run is None or not run.ended:
        yield f"no complete run returned its result {record['result']!r}"
    codes = {attempt["error_code"] for attempt in record["attempts"]} - {0, LOST}
    if codes:
        yield f"attempts ended with {', '.join(map(str, sorted(codes)))}"


# --- nodes ---


def instances_of(agent: Agent) -> int:
    """Return the number of instances that live on a node. Forks of a template have its command line."""
    pids = {*marked(ENGINE_VARIABLE, marker_of(agent.folder, "agent"))}
    count = 0
    for pid in pids:
        with suppress(OSError):
            template = b"python_template" in Path(f"/proc/{pid}/cmdline").read_bytes()
            count += _alive(pid) and (not template or _parent(pid) in pids)
    return count


def left_behind(folder: Path, marker: str, processes: Sequence[int]) -> Iterator[str]:
    """Yield what an engine or a node has left.

    ``processes`` are those that it had just before, and ``marker`` is in their environment; empty: there were none.
    """
    if marker and (count := processes_left(marker)):
        yield f"{folder.name}: {count} processes are left"
    if marker and (count := groups_left(marker)):
        yield f"{folder.name}: {count} cgroups are left"
    if files := files_left(folder):
        yield f"{folder.name}: temporary files are left: {', '.join(files[:5])}"
    for pid in processes:
        if _alive(pid):
            yield f"{folder.name}: process {pid} is left"


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return _stat(pid)[0] != "Z"
    return False


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
