"""What every source of the scenario is, and the ways that several are measured: posted to, or drained."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.harness import Figure, Options, Round, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import HELD, MAX_WAIT, PROJECT, Engine, engine, load, until

CONNECTIONS = 64
#: What an event has beside its envelope.
TEXT = "x" * 191
#: Messages in one event at the most, of sources that make one of many.
BATCH_SIZE = 100
#: Messages in a request to a stream.
PUT = 10

Count = Callable[[Any], int]  #: how many messages an event has


class Source(Struct, frozen=True, kw_only=True):
    what: str  #: for people who wait
    figures: tuple[Figure, ...]
    measure: Callable[[Options], Round]
    absent: Callable[[], str] = lambda: ""  #: why it can't be measured here


def figures(name: str) -> tuple[Figure, ...]:
    return (Figure(name=name, unit="events/s"), Figure(name=f"{name} loop", unit="µs CPU/event"))


class Listening:
    """A trigger whose source runs, on a function that executes nothing to speak of."""

    def __init__(self, server: Engine, kind: str, data: Mapping[str, Any]) -> None:
        urn = server.deploy("held", HELD, instances=1).rpartition("/")[2]
        body = {"trigger_type_code": kind, "trigger_status": "ACTIVE", "event_data": data}
        path = f"/v2/{PROJECT}/fgs/triggers/{urn}"
        self._server, self._state = server, f"{path}/{kind}/{server.call('POST', path, body)['trigger_id']}/state"
        self.trigger_id = self._state.split("/")[-2]
        until(lambda: server.call("GET", self._state)["state"] == "running", f"the source of {kind} did not run")

    def accepted(self, events: int) -> None:
        """Return once there were so many."""
        until(lambda: self._server.call("GET", self._state)["accepted"] >= events, f"{events} events did not come")


class Watch:
    """Time, and work of an engine's loop, from now on."""

    def __init__(self, server: Engine) -> None:
        self._server, self._used, self._began = server, cpu_of(server.pid), time.perf_counter()

    def figures(self, name: str, events: int) -> Round:
        passed, used = time.perf_counter() - self._began, cpu_of(self._server.pid).since(self._used)
        return {name: events / passed, f"{name} loop": used.loop / events * 1e6}


def posted(
    name: str,
    kind: str,
    data: Mapping[str, Any],
    path: str,
    body: str,
    headers: Mapping[str, str] | None = None,
    before: Callable[[Engine], object] = lambda server: None,
) -> Callable[[Options], Round]:
    """Measures what is posted to a path, in which ``{trigger}`` is the trigger's id. ``before`` makes what is there."""

    def measure(options: Options) -> Round:
        with scratch(options) as directory, engine(directory, profile=options.profile) as server:
            before(server)
            trigger = Listening(server, kind, data)
            where = path.format(trigger=trigger.trigger_id)
            found, requests = flood(server, name, server.port, where, body, options, headers)
            trigger.accepted(requests)
            return found

    return measure


def flood(
    server: Engine,
    name: str,
    port: int,
    path: str,
    body: str,
    options: Options,
    headers: Mapping[str, str] | None = None,
) -> tuple[Round, int]:
    """As many requests as are answered; gives their number, too."""
    before = cpu_of(server.pid)
    job = Job(
        port=port,
        path=path,
        body=body,
        headers=dict(headers or {}),
        connections=CONNECTIONS,
        seconds=options.seconds,
    )
    report = load(job)
    used = cpu_of(server.pid).since(before)
    return {name: report.rate, f"{name} loop": used.loop / report.requests * 1e6}, report.requests


def streamed(server: Engine, data: Path, name: str, path: str, body: str, requests: int, count: Count) -> Round:
    """So many requests, of ``PUT`` messages each, until all of these are in the journal."""
    watch = Watch(server)
    load(Job(port=server.port, path=path, body=body, connections=CONNECTIONS, seconds=MAX_WAIT, count=requests))
    wait_for_messages(data, requests * PUT, count)
    return watch.figures(name, requests * PUT)


def wait_for_messages(data: Path, messages: int, count: Count) -> None:
    """Return once the journal's events have so many."""
    last = found = 0

    def all_there() -> bool:
        nonlocal last, found
        for key, event in _events(data, last):
            last, found = key, found + count(msgspec.json.decode(event))
        return found >= messages

    until(all_there, f"{messages} messages did not come")


def in_records(event: Any) -> int:
    """As events of brokers have them."""
    return sum(len(record["messages"]) for record in event["records"])


def _events(data: Path, after: int) -> list[tuple[int, bytes]]:
    """All behind a key, in their order."""
    with closing(sqlite3.connect(f"file:{data}/journal.db?mode=ro", uri=True, timeout=10)) as database:
        return database.execute("SELECT key, body FROM payload WHERE key > ? ORDER BY key", (after,)).fetchall()
