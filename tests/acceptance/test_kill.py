"""Repeated kill -9 of the engine under load: every acknowledged invocation runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep

import pytest

from engine.model.identity import Identity
from tests.acceptance.engine_process import (
    REAL_TALLY,
    TALLY,
    EngineProcess,
    descendants,
    engine_on,
    is_alive,
    rows,
    until,
)
from tests.acceptance.kill_load import Clients, deploy, runs_in

SLOTS = 6
SEED = 17
UNENDED = "SELECT (SELECT count(*) FROM owed) + (SELECT count(*) FROM invocation WHERE state < 3)"
#: Runs of one request without a kill; "flaky" fails once.
EXPECTED = {"plain": 1, "slow": 1, "flaky": 2, "chain": 1, "sink": 1}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    settings = {"FUNCTIOND_EXECUTOR__SLOTS": str(SLOTS), "FUNCTIOND_QUEUE__ROWS": "3000"}
    with engine_on(tmp_path / "data", **settings) as engine:
        yield engine


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_was_acknowledged_runs_whenever_the_engine_is_killed(
    engine: EngineProcess, tmp_path: Path, kills: int
) -> None:
    runs_file = tmp_path / "runs"
    runs_file.touch()  # nothing may have run at the first kill
    deploy(engine, runs_file)
    promises = tmp_path / "promises"
    clients, crashes, random = Clients(engine, promises), Crashes(engine.data, runs_file), Random(SEED)

    with clients.sending(4, SEED):
        for _ in range(kills):
            sleep(random.uniform(0.05, 0.8))  # the random moment of the kill, not a wait for a result
            with clients.dead_engine():
                kill_and_start(engine, random, crashes)
    drain(engine, clients)
    assert engine.stop() == 0

    runs = runs_in(runs_file)
    poisoned = poisoned_in(engine.data)
    alive = {i: kind for i, kind in clients.acked.items() if i not in poisoned}
    lost = [i for i, kind in alive.items() if not runs[kind, i]]
    lost += [i for i, kind in alive.items() if kind == "chain" and not runs["sink", i]]
    more = {run: count - EXPECTED[run[0]] for run, count in runs.items() if count > EXPECTED[run[0]]}
    duplicates = sum(more.values())
    print(f"{kills} kills, {len(clients.acked)} acked, {len(lost)} lost, {duplicates} of {crashes.in_flight} again")
    assert set(clients.acked) == {line.split()[1] for line in promises.read_text().splitlines()} != set()
    assert not lost
    assert not clients.contradictions
    assert {run: count for run, count in more.items() if count > crashes.met[run[0] == "sink", run[1]]} == {}
    assert duplicates <= crashes.in_flight
    assert rows(engine.data, "SELECT * FROM invocation WHERE state <> 3 AND NOT (code = 150500 AND deaths = 3)") == []
    assert rows(engine.data, "SELECT count(*) FROM owed") == [(0,)]
    assert sorted(rows(engine.data, TALLY)) == sorted(rows(engine.data, REAL_TALLY))


class Crashes:
    """Effect of each kill: the invocations that had not ended on disk, and how many of those may have run before it."""

    def __init__(self, data: Path, runs: Path) -> None:
        self._data, self._runs = data, runs
        self.met: Counter[tuple[bool, str]] = Counter()  #: kills during it, by (is a sink, id of the original request)
        self.in_flight = 0

    def look(self) -> None:
        """Record the unended invocations after a kill, before the restart."""
        identity = Identity(node_of(self._data))
        stored = rows(self._data, "SELECT key, body FROM invocation JOIN payload USING (key) WHERE state < 3")
        unended = {(bool(origin := origin_of(body)), origin or identity.request_id(key)) for key, body in stored}
        ran = {(kind == "sink", request_id) for kind, request_id in runs_in(self._runs)}
        self.met.update(unended)
        self.in_flight += len(unended & ran) + SLOTS  # instances that still run record their run a moment later


def node_of(data: Path) -> int:
    [(node,)] = rows(data, "SELECT value FROM meta WHERE name = 'node'")
    return int(node)


def origin_of(body: str | bytes) -> str:
    """Return the request id whose outcome a sink received; empty for any other payload."""
    return str(json.loads(body).get("request_context", {}).get("request_id", ""))


def poisoned_in(data: Path) -> set[str]:
    """Return the requests that failed as documented after four kills during a run, and the chains of such sinks."""
    identity = Identity(node_of(data))
    stored = rows(data, "SELECT key, body FROM invocation JOIN payload USING (key) WHERE state = 4 AND deaths = 3")
    return {identity.request_id(key) for key, _ in stored} | {
        origin for _, body in stored if (origin := origin_of(body))
    }


def kill_and_start(engine: EngineProcess, random: Random, crashes: Crashes) -> None:
    children = descendants(engine.pid)
    engine.kill(children=random.random() < 0.5)
    crashes.look()
    engine.start()
    assert not [pid for pid in children if is_alive(pid)], "an instance of the killed engine still runs"


def drain(engine: EngineProcess, clients: Clients) -> None:
    """Wait for the end of all acknowledged invocations and of those that they started."""
    for request_id, kind in clients.acked.items():
        engine.record(kind, request_id, wait=60)
    until(lambda: rows(engine.data, UNENDED) == [(0,)])  # invocations started by a delivery have unknown ids
