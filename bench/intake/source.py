"""Declaration of a source for the scenario ``intake``, and helpers that send events and measure their intake."""

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
#: Content of an event without its envelope.
TEXT = "x" * 191
#: Maximum messages per event, for sources that combine messages.
BATCH_SIZE = 100
#: Messages per request to a stream.
PUT = 10

Count = Callable[[Any], int]  #: returns the number of messages in an event


class Source(Struct, frozen=True, kw_only=True):
    description: str  #: text of the progress message
    figures: tuple[Figure, ...]
    measure: Callable[[Options], Round]
    absent: Callable[[], str] = lambda: ""  #: returns the reason why the source cannot be measured here, or ""


def figures(name: str) -> tuple[Figure, ...]:
    return (Figure(name=name, unit="events/s"), Figure(name=f"{name} loop", unit="µs CPU/event"))


class Listening:
    """Trigger that accepts events for a function.

    The function's only instance sleeps, so that accepted events stay queued.
    """

    def __init__(self, server: Engine, kind: str, data: Mapping[str, Any]) -> None:
        urn = server.deploy("held", HELD, instances=1).rpartition("/")[2]
        body = {"trigger_type_code": kind, "trigger_status": "ACTIVE", "event_data": data}
        path = f"/v2/{PROJECT}/fgs/triggers/{urn}"
        self._server, self._state = server, f"{path}/{kind}/{server.call('POST', path, body)['trigger_id']}/state"
        self.trigger_id = self._state.split("/")[-2]
        until(lambda: server.call("GET", self._state)["state"] == "running", f"the source of {kind} did not run")

    def accepted(self, events: int) -> None:
        """Return when the trigger has accepted ``events`` events since the engine started."""
        until(lambda: self._server.call("GET", self._state)["accepted"] >= events, f"{events} events not accepted")


class Watch:
    """Measurement of elapsed time, and of the CPU time of an engine's event loop, since this object was created."""

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
    """Return a function that measures a source by sending HTTP requests to ``path``.

    ``{trigger}`` in the path stands for the trigger's id. ``before`` is called with the engine before the trigger is
    created.
    """

    def measure(options: Options) -> Round:
        with scratch(options) as directory, engine(directory, profile=options.profile) as server:
            before(server)
            trigger = Listening(server, kind, data)
            url_path = path.format(trigger=trigger.trigger_id)
            figures, requests = flood(server, name, server.port, url_path, body, options, headers)
            trigger.accepted(requests)
            return figures

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
    """Send requests over several connections, each as soon as the previous one is answered.

    Return the figures and the number of requests.
    """
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
    """Send ``requests`` requests of ``PUT`` messages each, and return the figures when all messages are in the journal.

    ``count`` returns the number of messages in an event.
    """
    watch = Watch(server)
    load(Job(port=server.port, path=path, body=body, connections=CONNECTIONS, seconds=MAX_WAIT, count=requests))
    wait_for_messages(data, requests * PUT, count)
    return watch.figures(name, requests * PUT)


def wait_for_messages(data: Path, messages: int, count: Count) -> None:
    """Return when the events in the journal contain ``messages`` messages.

    ``count`` returns the number of messages in one event.
    """
    last = found = 0

    def all_there() -> bool:
        nonlocal last, found
        for key, event in _events(data, last):
            last, found = key, found + count(msgspec.json.decode(event))
        return found >= messages

    until(all_there, f"{messages} messages not in the journal")


def in_records(event: Any) -> int:
    """Return the number of messages in a Kafka or RabbitMQ event."""
    return sum(len(record["messages"]) for record in event["records"])


def _events(data: Path, after: int) -> list[tuple[int, bytes]]:
    """Return keys and payloads of the journal's invocations whose keys are greater than ``after``, in key order."""
    with closing(sqlite3.connect(f"file:{data}/journal.db?mode=ro", uri=True, timeout=10)) as database:
        return database.execute("SELECT key, body FROM payload WHERE key > ? ORDER BY key", (after,)).fetchall()
