"""Repeated kill -9 of the engine: every acknowledged invocation runs, and all resources are there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest

from engine.model.identity import Identity
from tests.acceptance.engine_process import (
    BASE,
    PROJECT,
    REAL_TALLY,
    TALLY,
    EngineProcess,
    descendants,
    engine_on,
    is_alive,
    rows,
    until,
    urn_of,
)
from tests.acceptance.kill_load import Clients, deploy, runs_in
from tests.acceptance.triggering import GOOD
from tests.support.http_app import SOURCE, encoded, zipped

pytestmark = pytest.mark.long

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


ROOT = f"/v2/{PROJECT}/fgs"
HELLO = f"{BASE}/{urn_of('hello')}"


def ask(engine: EngineProcess, method: str, path: str, body: object = None) -> Any:
    reply = engine.ask(method, path, body)
    assert reply.status < 300, reply
    return json.loads(reply.body or b"null")


def fill(engine: EngineProcess) -> None:
    """Create a function with one resource of every kind."""
    package = encoded(zipped(shared__py="VALUE = 1\n"))
    new = {"name": "shared", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}
    dependency = ask(engine, "POST", f"{ROOT}/dependencies/version", new)
    engine.create("hello", "import shared\n" + SOURCE, depend_version_list=[dependency["id"]])
    ask(engine, "POST", f"{HELLO}/events", {"name": "first", "content": encoded('{"k": 1}')})
    ask(engine, "POST", f"/v2/{PROJECT}/functions/hello/tags/create", {"tags": [{"key": "owner", "value": "me"}]})
    ask(engine, "PUT", f"{HELLO}/reservedinstances", {"count": 1})
    ask(engine, "PUT", f"{HELLO}/tracing", {"tracing_ak": "access", "tracing_sk": "secret"})
    engine.trigger("hello", "SMN", {"topic_urn": "urn:smn:x"})
    engine.trigger(
        "hello", "TIMER", {"name": "t", "schedule_type": "Rate", "schedule": "30d"}, trigger_status="DISABLED"
    )


def all_of_it(engine: EngineProcess) -> dict[str, Any]:
    paths = {
        "dependencies": f"{ROOT}/dependencies",
        "function": f"{HELLO}/config",
        "events": f"{HELLO}/events",
        "tags": f"/v2/{PROJECT}/functions/hello/tags",
        "reserved": f"{ROOT}/functions/reservedinstanceconfigs",
        "tracing": f"{HELLO}/tracing",
        "triggers": f"{ROOT}/triggers/{urn_of('hello')}",
    }
    return {name: ask(engine, "GET", path) for name, path in paths.items()}


def test_all_resources_are_there_after_a_kill(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        before = all_of_it(engine)
        engine.kill(children=True)
        engine.start()

        assert all_of_it(engine) == before
        assert before["events"]["count"] == before["reserved"]["count"] == before["dependencies"]["count"] == 1
        record = engine.record("hello", engine.accepted("hello", {"k": 1}), wait=60)
        assert record["status"] == "SUCCESS"


def test_code_of_dependencies_stays_at_a_start_and_goes_when_nobody_names_it(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        (dependency,) = ask(engine, "GET", f"{ROOT}/dependencies")["dependencies"]
        folders = len([entry for entry in (tmp_path / "code").iterdir() if entry.is_dir()])
        ask(engine, "DELETE", HELLO.removesuffix(":latest"))
        engine.kill(children=True)
        engine.start()
        kept = len([entry for entry in (tmp_path / "code").iterdir() if entry.is_dir()])
        ask(engine, "DELETE", f"{ROOT}/dependencies/{dependency['dep_id']}/version/1")
        engine.kill(children=True)
        engine.start()

        assert (folders, kept) == (2, 1)
        assert list((tmp_path / "code").iterdir()) == []


def test_the_log_names_triggers_without_a_source_and_keys_that_were_passed_over(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        engine.create("hello", SOURCE)
        trigger = engine.trigger("hello", "DMS", {**GOOD["DMS"], "invented": "quiet"})["trigger_id"]
        engine.stop()

    lines = [json.loads(line) for line in engine.log]
    [passed] = [line for line in lines if line["event"].startswith("unknown keys ignored")]
    [missing] = [line for line in lines if line["event"].startswith("trigger has no source")]
    assert (passed["trigger"], passed["kind"], passed["keys"]) == (trigger, "DMS", ["invented"])
    assert (missing["trigger"], missing["level"]) == (trigger, "warning")
    assert "quiet" not in "".join(engine.log)
