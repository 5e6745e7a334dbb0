"""Calls that running functions queue while their instances and the engine are killed again and again.

Each parent queues its children one by one, then in a batch. A run that is repeated queues the same calls again. At the
end each child must have been accepted once and have run, and each parent must have all of its children.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from random import Random

from bench.groups import BASE
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.kills import KilledEngine, killed_engine, noting
from bench.soak.remains import kill_one

PARENTS, CHILDREN, KILLS = 100, 100, 50
EQUAL = 4  #: children of a parent with the same event
AT_ONCE = 2  #: instances of the parents' function
RETRIES = {"max_async_retry_attempts": 3, "max_async_event_age_in_seconds": 86_400}
PARENT = f"""
from functiond import Client

def handler(event, context):
    note(context, "parent")
    events = [{{"parent": event["number"], "child": place % {CHILDREN // EQUAL}}} for place in range({CHILDREN})]
    ids = [context.enqueue("child", each) for each in events[:{CHILDREN // 2}]]
    return ids + [child.request_id for child in Client().enqueue_many("child", events[{CHILDREN // 2}:])]
"""
CHILD = "def handler(event, context):\n    note(context, 'child', event['parent'], event['child'])\n"


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    seed = options.seed
    while True:
        yield _kill_again(options, seed, progress)
        seed += 1


def _kill_again(options: Options, seed: int, progress: Progress) -> Round:
    parents, kills, random = options.scaled(PARENTS), options.scaled(KILLS), Random(seed)
    began, killed_instances, spared_until = time.perf_counter(), 0, 0
    with scratch(options) as folder, killed_engine(folder / "data", random, FUNCTIOND_RETRY__BASE="0.1") as killed:
        runs = folder / "runs"
        functions = {
            "parent": killed.server.deploy("parent", noting(runs, PARENT), instances=AT_ONCE),
            "child": killed.server.deploy("child", noting(runs, CHILD)),
        }
        for path in functions.values():
            killed.call("PUT", f"{path}/async-invoke-config", RETRIES)
        calls = [{"function": "parent", "event": {"number": number}} for number in range(parents)]
        ids = [result["request_id"] for result in killed.call("POST", f"{BASE}/calls", {"calls": calls})["results"]]

        def done() -> int:
            return _count(killed, functions["child"], "") + _count(killed, functions["child"], "status=SUCCESS")

        total = 2 * parents * CHILDREN  # children accepted, and children ended
        for number in range(kills):
            killed.wait(random.randint(number * total // kills, (number + 1) * total // kills), done)
            time.sleep(random.uniform(0, 0.3))  # the random moment of the kill, not a wait for a result
            ended = _count(killed, functions["parent"], "status=SUCCESS")
            spared = parents > ended < spared_until  # the engine gives up a run in which it was killed four times
            if (spared or random.random() < 0.5) and kill_one(killed.server.pid, random):
                killed_instances += 1
            else:
                spared_until = ended + AT_ONCE
                killed.kill_within(0.1)
            if not number % 10:
                progress(f"children: {killed.kills} kills of the engine, {killed_instances} of instances")
        killed.settle()
        killed.wait(total, done)
        accepted = _count(killed, functions["child"], "")
        problems = list(_check(killed, functions["child"], ids, runs.read_text().splitlines()))
        lines = Counter(line.split()[1] for line in runs.read_text().splitlines())
    for problem in problems[:20]:
        progress(f"children: seed {seed}: {problem}")
    return {
        "violations": len(problems),
        "children": accepted,
        "kills of the engine": killed.kills,
        "kills of its processes": killed_instances,
        "kills": killed.kills + killed_instances,
        "runs of parents": lines["parent"],
        "runs of children": lines["child"],
        "seconds": time.perf_counter() - began,
    }


def _count(killed: KilledEngine, function: str, query: str) -> int:
    return int(killed.call("GET", f"{function}/async-invocations?limit=1&{query}")["count"])


def _check(killed: KilledEngine, child: str, parents: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    ran = {request_id: tuple(words[1:]) for request_id, *words in map(str.split, lines) if words[0] == "child"}
    accepted, seen = _count(killed, child, ""), set[str]()
    if accepted != len(parents) * CHILDREN:
        yield f"{accepted} children were accepted, not {len(parents) * CHILDREN}"
    for number, parent in enumerate(parents):
        [result] = killed.call("POST", f"{BASE}/async-invocations/results", {"request_ids": [parent], "wait": 50})[
            "results"
        ]
        if result["status"] != "SUCCESS":
            yield f"parent {number} ended with {result}"
            continue
        children = _children(killed, parent)
        shown = [one["request_id"] for one in children]
        if sorted(json.loads(result["result"])) != sorted(shown) or len(set(shown)) != CHILDREN:
            yield f"parent {number} has the children {shown}, and its run returned {result['result']}"
        for one in children:
            if one["status"] != "SUCCESS" or one["request_id"] not in ran:
                yield f"child {one} of parent {number} has not run"
        events = Counter(ran.get(request_id) for request_id in shown)
        if events != {(str(number), str(event)): EQUAL for event in range(CHILDREN // EQUAL)}:
            yield f"the children of parent {number} ran with {events}"
        seen.update(shown)
    if strangers := ran.keys() - seen:
        yield f"{len(strangers)} children ran that are of no parent, such as {min(strangers)}"


def _children(killed: KilledEngine, parent: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    after: str | None = ""
    while after is not None:
        page = killed.call("GET", f"{BASE}/async-invocations/{parent}/children?limit=64&after={after}")
        found, after = found + page["invocations"], page["next_after"]
    return found


SCENARIO = Scenario(
    name="children",
    title=f"{PARENTS * CHILDREN:,} calls queued by runs, over {KILLS} kills of instances and the engine",
    figures=(
        Figure(name="violations", unit="of acceptances, runs and trees", at_most=0, required=True),
        Figure(name="children", unit="accepted"),
        Figure(name="kills", unit="kill -9 at random moments", at_least=KILLS),
        Figure(name="kills of the engine", unit=""),
        Figure(name="kills of its processes", unit="instances and what starts them"),
        Figure(name="runs of parents", unit=f"of {PARENTS}, begun again after kills"),
        Figure(name="runs of children", unit=f"of {PARENTS * CHILDREN:,}"),
        Figure(name="seconds", unit="s, starts included"),
    ),
    rounds=rounds,
    note="the moments of the kills are drawn by --seed",
)
