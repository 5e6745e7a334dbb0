"""Group whose members run while the engine is killed again and again, and memory of the engine while a group waits.

The client repeats each request that a kill interrupts. The continuation may run more than once, because a kill in its
run begins it again, but always as the same invocation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from random import Random

from msgspec import Struct

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.kills import KilledEngine, killed_engine, noting
from bench.machine import memory_mb
from bench.server import HELD, PROJECT, Engine, engine

MEMBERS = 100_000
BATCH = 1_000
FILLING, SEALING, RUNNING = 6, 2, 9  #: kills in each part; one in the creation, at the last end and in the continuation
KILLS = FILLING + SEALING + RUNNING + 3
SETTLED = 1.0  #: seconds from the start to the measurement of memory
FAILING = 997  #: every so many members, one fails
BASE = f"/v2/{PROJECT}/fgs"
MEMBER = (
    "def handler(event, context):\n"
    f"    if event['place'] % {FAILING} == 0:\n"
    "        raise ValueError('as asked')\n"
    "    return 2 * event['place']\n"
)
JOIN = (
    "def handler(event, context):\n"
    "    note(context, json.dumps(event['group']))\n"
    "    time.sleep(1)\n"
    "    return event['group']['done']\n"
)


class Group(Struct, frozen=True):
    group_id: str
    request_id: str  #: of the continuation


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    count, seed = options.scaled(MEMBERS), options.seed
    while True:
        progress(f"groups: {count:,} calls wait without a group, then with one")
        alone, grouped = _memory(options, count, grouped=False), _memory(options, count, grouped=True)
        figures = grouped | {f"{name}, more": grouped[name] - alone[name] for name in alone}
        yield figures | _kill_again(options, count, seed, progress)
        seed += 1


# --- kills --------------------------------------------------------------------------------------------------


def _kill_again(options: Options, count: int, seed: int, progress: Progress) -> Round:
    began = time.perf_counter()
    with scratch(options) as folder:
        runs = folder / "runs"
        with killed_engine(folder / "data", Random(seed)) as killed:
            member = killed.server.deploy("member", MEMBER)
            killed.server.deploy("join", noting(runs, JOIN))
            group = _run_group(killed, count, progress)
            problems = [*_check_group(killed, group, count), *_check_members(killed, member, group, count)]
        lines = runs.read_text().splitlines()
        problems += _check_runs(lines, group, count)
    for problem in problems[:20]:
        progress(f"groups: seed {seed}: {problem}")
    return {
        "violations": len(problems),
        "kills": killed.kills,
        "ids of continuations that ran": len({line.partition(" ")[0] for line in lines}),
        "runs of the continuation": len(lines),
        "seconds": time.perf_counter() - began,
    }


def _run_group(killed: KilledEngine, count: int, progress: Progress) -> Group:
    """Queue a group and return when its continuation has ended. The engine is killed in each part."""
    random, size = killed.random, min(BATCH, max(1, count // 20))
    killed.kill_within(0.03)
    body = {"require": "ended", "key": "all", "then": [{"function": "join"}]}
    group = Group(**killed.call("POST", f"{BASE}/groups", body))
    path, firsts = f"{BASE}/groups/{group.group_id}", range(0, count, size)
    at = set(random.sample(firsts, FILLING))
    for first in firsts:
        if first in at:
            killed.kill_within(0.2)
        places = range(first, min(first + size, count))
        calls = [{"function": "member", "event": {"place": place}} for place in places]
        killed.call("POST", f"{BASE}/calls", {"calls": calls, "group": {"id": group.group_id, "first": first}})
    for _ in range(SEALING):
        killed.kill_within(0.03)
        done = killed.call("POST", f"{path}/seal", {"total": count})["done"]
    progress(f"groups: sealed after {killed.kills} kills, {done:,} of {count:,} members have ended")
    for wanted in [*sorted(random.randint(done, count) for _ in range(RUNNING)), count]:
        killed.wait(wanted, lambda: killed.call("GET", path)["done"])
        killed.kill_within(0.3)
    killed.wait(1, lambda: killed.call("GET", path)["state"] == "SUCCESS")
    killed.kill_within(0.5)
    killed.settle()
    return group


def _check_group(killed: KilledEngine, group: Group, count: int) -> Iterator[str]:
    shown = killed.call("GET", f"{BASE}/groups/{group.group_id}")
    expected = {"state": "SUCCESS", "total": count, "stored": count, **_counts(count), "request_id": group.request_id}
    for name, value in expected.items():
        if shown[name] != value:
            yield f"the group's {name} is {shown[name]}, not {value}"
    reply = killed.call("POST", f"{BASE}/async-invocations/results", {"request_ids": [group.request_id], "wait": 50})
    if [(result["status"], result["result"]) for result in reply["results"]] != [("SUCCESS", str(count))]:
        yield f"the continuation ended with {reply}"


def _check_members(killed: KilledEngine, member: str, group: Group, count: int) -> Iterator[str]:
    stored = sum(killed.server.ended(member, status) for status in ("SUCCESS", "FAIL"))
    if stored != count:
        yield f"{stored} invocations of the members' function have ended, not {count}"
    seen, after = 0, ""
    while after is not None:
        page = killed.call("GET", f"{BASE}/groups/{group.group_id}/members?limit=1000&after={after}")
        after = page["next_after"]
        for shown in page["members"]:
            status = "SUCCESS" if seen % FAILING else "FAIL"
            result = str(2 * seen) if seen % FAILING else shown["result"]
            if (shown["place"], shown["status"], shown["result"]) != (seen, status, result):
                yield f"the member at place {seen} is {shown}"
            seen += 1
    if seen != count:
        yield f"{seen} members are listed, not {count}"


def _check_runs(lines: Sequence[str], group: Group, count: int) -> Iterator[str]:
    expected = {"id": group.group_id, "total": count, **_counts(count), "require": "ended"}
    for line in lines:
        request_id, _, document = line.partition(" ")
        if request_id != group.request_id:
            yield f"{request_id} ran, which is not the continuation {group.request_id}"
        if json.loads(document) != expected:
            yield f"the continuation ran with {document}, not {expected}"
    if not lines:
        yield "the continuation has not run"


def _counts(count: int) -> dict[str, int]:
    return {"done": count, "failed": len(range(0, count, FAILING))}


# --- memory -------------------------------------------------------------------------------------------------


def _memory(options: Options, count: int, *, grouped: bool) -> Round:
    """Return the memory by which an engine grows when calls wait, and that of the engine started on them."""
    with scratch(options) as folder:
        with engine(folder) as server:
            server.deploy("held", HELD, instances=1)
            queue(server, "held", BATCH)  # what the first requests take is no growth
            before = memory_mb(server.pid)
            queue(server, "held", count, grouped=grouped)
            grown = memory_mb(server.pid) - before
        with engine(folder) as server:
            time.sleep(SETTLED)
            return {"growth": grown, "memory after a restart": memory_mb(server.pid)}


def queue(server: Engine, function: str, count: int, *, grouped: bool = False) -> list[str]:
    """Queue calls in batches, as members of one group if they are ``grouped``. Return their ids."""
    group = server.call("POST", f"{BASE}/groups", {"require": "ended"})["group_id"] if grouped else ""
    ids: list[str] = []
    for first in range(0, count, BATCH):
        calls = [{"function": function, "event": {"place": place}} for place in range(first, min(first + BATCH, count))]
        body = {"calls": calls, **({"group": {"id": group, "first": first}} if group else {})}
        ids += [result["request_id"] for result in server.call("POST", f"{BASE}/calls", body)["results"]]
    if group:
        server.call("POST", f"{BASE}/groups/{group}/seal", {"total": count})
    return ids


SCENARIO = Scenario(
    name="groups",
    title=f"group of {MEMBERS:,} members, sealed and run over {KILLS} kills of the engine",
    figures=(
        Figure(name="violations", unit="of counts, members and runs", at_most=0, required=True),
        Figure(name="ids of continuations that ran", unit="", at_most=1, required=True),
        Figure(name="runs of the continuation", unit="again after a kill in its run"),
        Figure(name="kills", unit="kill -9 of the engine", at_least=KILLS),
        Figure(name="seconds", unit="s, starts included"),
        Figure(name="growth, more", unit="MB with a group", at_most=20),
        Figure(name="memory after a restart, more", unit="MB with a group", at_most=20),
        Figure(name="growth", unit="MB"),
        Figure(name="memory after a restart", unit="MB"),
    ),
    rounds=rounds,
    note="each kill comes at a random moment of a request or of the run; --seed repeats the moments",
)
