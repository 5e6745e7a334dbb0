"""Cost of calls by code: their ends with and without a group, beside those of plain invocations, and many results.

The function is paused while its invocations are queued. Then they run in instances that run already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from functiond import Client

from bench.accept_batch import accepted
from bench.groups import BASE, BATCH, queue
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.server import HELD, NOOP, PROJECT, Engine, ServerFailed, engine

COUNT, RUNS = 10_000, 2
RATE = f"accept_batch {BATCH:,}"
QUEUES = f"""
import time
from functiond import Client

def handler(event, context):
    events, client, began = [{{"k": f"{{place:0191}}"}} for place in range({COUNT})], Client(), time.perf_counter()
    client.enqueue_many("held", events)
    return time.perf_counter() - began
"""
KINDS = ("plain", "calls", "members")  #: invocations, calls without a group, and members of one group


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    count = options.scaled(COUNT)
    with scratch(options) as folder, engine(folder, profile=options.profile) as server:
        path = server.deploy("noop", NOOP)
        queues: dict[str, Callable[[int], list[str]]] = {
            "plain": partial(_queue_plain, server, path),
            "calls": partial(queue, server, "noop"),
            "members": partial(queue, server, "noop", grouped=True),
        }
        order = [*KINDS]
        _drain(server, path, queues["plain"], count)
        while True:
            figures: Round = {}
            for kind in order:
                progress(f"calls: {count:,} {kind}")
                ids, seconds, cpu = _drain(server, path, queues[kind], count)
                figures |= {kind: count / seconds, f"CPU of {kind}": cpu / count * 1e6}
            figures |= {
                "members / calls, time": figures["calls"] / figures["members"],
                "members / calls, CPU": figures["CPU of members"] / figures["CPU of calls"],
                "members / plain, time": figures["plain"] / figures["members"],
                "members / plain, CPU": figures["CPU of members"] / figures["CPU of plain"],
                "results": _results(server, ids),
                "results by the client": _results_by_client(server, ids),
            }
            progress("calls: queued by runs, and by a client")
            figures |= {"queued by runs": _queued_by_runs(options), "accept_batch": accepted(BATCH, options)[RATE]}
            figures["queued by runs / accept_batch"] = figures["queued by runs"] / figures["accept_batch"]
            yield figures
            order = [*order[1:], order[0]] if order[0] != KINDS[-1] else [*reversed(KINDS)]


def _queue_plain(server: Engine, path: str, count: int) -> list[str]:
    ids: list[str] = []
    for first in range(0, count, BATCH):
        events = [{"event": {"place": place}} for place in range(first, min(first + BATCH, count))]
        reply = server.call("POST", f"{path}/invocations-async/batch", {"events": events})
        ids += [result["request_id"] for result in reply["results"]]
    return ids


def _drain(server: Engine, path: str, queued: Callable[[int], list[str]], count: int) -> tuple[list[str], float, float]:
    """Queue invocations, then let them run. Return their ids, the seconds, and those of the engine's processor."""
    server.call("PATCH", f"{path}/controls", {"paused": True})
    ids = queued(count)
    clock = ~server.pid << 3 | 2  # of the processor time of the process, with that of threads that have ended
    before, began = time.clock_gettime(clock), time.perf_counter()
    server.call("PATCH", f"{path}/controls", {"paused": False})
    for first in range(0, count, BATCH):
        _all(server, ids[first : first + BATCH])
    return ids, time.perf_counter() - began, time.clock_gettime(clock) - before


def _queued_by_runs(options: Options) -> float:
    """Return the calls per second that ``RUNS`` runs queue, ``COUNT`` each, with events of the size of accept_batch's.

    Their instances have the memory that gives each a whole processor.
    """
    with scratch(options) as folder, engine(folder) as server, ThreadPoolExecutor(RUNS) as runs:
        server.deploy("held", HELD, instances=1)
        path = server.deploy("queues", QUEUES, memory=1024)

        def run(_: int) -> float:
            return float(server.call("POST", f"{path}/invocations", {}))

        list(runs.map(run, range(RUNS)))  # starts the instances
        rates: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            rates.append(RUNS * COUNT / max(runs.map(run, range(RUNS))))
        return median(rates)


def _results(server: Engine, ids: list[str]) -> float:
    """Return the seconds in which the results of ended invocations are read, one request after another."""
    began = time.perf_counter()
    for first in range(0, len(ids), BATCH):
        _all(server, ids[first : first + BATCH])
    return time.perf_counter() - began


def _results_by_client(server: Engine, ids: list[str]) -> float:
    with Client(f"http://127.0.0.1:{server.port}", project=PROJECT) as client:
        handles = [client.handle("noop", request_id) for request_id in ids]
        began = time.perf_counter()
        if (results := list(client.results(handles))) != [None] * len(ids):
            raise ServerFailed(f"the client returned {len(results)} results: {results[:3]}")
        return time.perf_counter() - began


def _all(server: Engine, ids: list[str]) -> None:
    body = {"request_ids": ids, "wait": 50, "count": len(ids)}
    results = server.call("POST", f"{BASE}/async-invocations/results", body)["results"]
    if sum(result["status"] == "SUCCESS" for result in results) != len(ids):
        raise ServerFailed(f"{len(results)} of {len(ids)} invocations have ended")


SCENARIO = Scenario(
    name="calls",
    title="calls by code: ends of invocations per second, and their results",
    figures=(
        Figure(name="members / calls, time", unit="for an end", at_most=1.1),
        Figure(name="members / calls, CPU", unit="for an end", at_most=1.1),
        Figure(name="members / plain, time", unit="for an end"),
        Figure(name="members / plain, CPU", unit="for an end"),
        Figure(name="queued by runs / accept_batch", unit="ratio of rates", at_least=0.5),
        Figure(name="queued by runs", unit="calls/s, enqueue_many"),
        Figure(name="accept_batch", unit="events/s"),
        Figure(name="results by the client", unit=f"s for {COUNT:,}, in their order", at_most=3),
        Figure(name="results", unit=f"s for {COUNT:,}, requests of {BATCH:,}", at_most=3),
        *(Figure(name=kind, unit="runs and ends/s") for kind in KINDS),
        *(Figure(name=f"CPU of {kind}", unit="µs of the engine for a run and end") for kind in KINDS),
    ),
    rounds=rounds,
    note="ratios are of one round, whose order changes from round to round",
)
