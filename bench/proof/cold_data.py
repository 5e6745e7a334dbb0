"""Data directory with rows of all kinds, whose pages the cold trials damage, and the receiver of its outcomes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.proof.clients import ECHO, Clients, prepare
from bench.proof.lives import ENVIRONMENT, transient, until
from bench.proof.promises import Accepted
from bench.server import Engine
from engine.model.identity import Identity

PAGE = 4096
_OTHERS = 250  #: events of each function besides those of the clients
_CLIENTS = 2500  #: promises of the clients
_KEPT = 1200  #: ended invocations that are kept; the pruner leaves free pages with the rows of all others
_SETTINGS = {**ENVIRONMENT, "FUNCTIOND_STORAGE__RETENTION_ROWS": str(_KEPT)}
FAILS = "def handler(event, context):\n    raise ValueError(event)\n"
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(0.2)\n    return 'done'\n"
#: Functions with a destination, and how the receiver answers: it takes outcomes, refuses them for now, or for ever.
TAKEN, LATER, NEVER = "taken", "later", "never"


class Receiver(ThreadingHTTPServer):
    """Receiver of outcomes by WEBHOOK. It counts those that it has taken."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        #: Ids of deliveries, which are that of the request and a number, and when each was taken.
        self.taken: list[tuple[str, float]] = []
        self.takes_all = False

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a sender that was killed."""


class _Answer(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.strip("/")
        status = 200 if name == TAKEN or (name == LATER and self.server.takes_all) else 410 if name == NEVER else 503
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if status == 200:
            self.server.taken.append((self.headers["webhook-id"], time.perf_counter()))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class Filled(Struct, frozen=True, kw_only=True):
    """Data directory of a killed engine, whose commits are all in ``journal.db``, and what it has acknowledged."""

    data: Path
    identity: Identity
    states: dict[str, int]  #: by request id
    pruned: set[str]  #: request ids of accepted invocations that are no longer stored
    unready: set[str]  #: request ids that do not run soon: paused or with a long delay
    owed: set[str]  #: ids of pending deliveries
    delivered: set[str]  #: request ids whose outcome was taken for good
    last_function: int  #: largest id of a function that was ever given out
    pages: dict[str, list[int]]  #: by kind, such as "payload leaf"


def fill(folder: Path, receiver: Receiver, seed: int) -> Filled:
    """Let an engine store rows of all kinds, and kill it while some of them run."""
    data = folder / "filled"
    server = Engine(folder / "data", **_SETTINGS)
    try:
        server.wait_until_serving()
        clients = Clients(prepare(server), server.port)
        paths = _deploy(server, receiver)
        ended = (TAKEN, LATER, NEVER, "fails")
        for name in ended:
            send(server, paths[name], _OTHERS)
        with clients.sending(seed):
            until(lambda: len(clients.promises) > _CLIENTS)
        receiver.takes_all = True
        until(lambda: len(receiver.taken) >= 3 * _OTHERS)  # all but those of "never"; their pages are free now
        receiver.takes_all = False
        until(lambda: _ended(folder / "data") <= _KEPT)
        for name in ended:
            send(server, paths[name], _OTHERS, first=_OTHERS)
        send(server, f"{paths[TAKEN]}:!live", _OTHERS, first=_OTHERS)
        until(lambda: len(receiver.taken) >= 5 * _OTHERS)
        dropped = server.deploy("dropped", ECHO)
        server.wait_for(dropped, send(server, dropped, 1)[0])
        server.call("DELETE", dropped)
        server.call("POST", f"{paths['paused']}/pause")
        send(server, paths["paused"], _OTHERS)
        send(server, paths["paused"], _OTHERS, delay=3600)
        send(server, paths["slow"], _OTHERS, keys=25)
        send(server, paths["slow"], 40)
    finally:
        server.kill()
    shutil.copytree(folder / "data", data, ignore=transient)
    with closing(sqlite3.connect(data / "journal.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        accepted = {promise.request_id for promise in clients.promises if isinstance(promise, Accepted)}
        return _described(data, db, {value[:36] for value, _ in receiver.taken}, accepted)


def _ended(data: Path) -> int:
    with closing(sqlite3.connect(f"{(data / 'journal.db').as_uri()}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM invocation WHERE state >= 3").fetchone()[0])


def _deploy(server: Engine, receiver: Receiver) -> dict[str, str]:
    sources = {TAKEN: ECHO, LATER: ECHO, NEVER: ECHO, "fails": FAILS, "paused": ECHO, "slow": SLOW}
    paths = {name: server.deploy(name, source) for name, source in sources.items()}
    for name in (TAKEN, LATER, NEVER, "fails"):
        url = f"http://127.0.0.1:{receiver.server_port}/{name if name != 'fails' else TAKEN}"
        to = {"destination": "WEBHOOK", "param": json.dumps({"url": url})}
        settings = {
            "destination_config": {"on_failure" if name == "fails" else "on_success": to},
            "max_async_retry_attempts": int(name == "fails"),
            "enable_async_status_log": True,
        }
        server.call("PUT", f"{paths[name]}/async-invoke-config", settings)
    server.call("POST", f"{paths[TAKEN]}/versions", {"version": "v1"})
    server.call("POST", f"{paths[TAKEN]}/aliases", {"name": "live", "version": "v1"})
    return paths


def send(server: Engine, function: str, number: int, *, first: int = 0, delay: float = 0, keys: int = 0) -> list[str]:
    """Send events in one batch, in the order of ``keys`` keys if there are some. Return the request ids."""
    events: list[dict[str, Any]] = [
        {"event": {"n": n, "text": "x" * (n % 7 * 300)}, "delay": delay} for n in range(first, first + number)
    ]
    for n, event in enumerate(events, first):
        event.update({"ordering_key": f"k{n % keys}"} if keys else {"key": f"{delay} {n}"})
    answer = server.call("POST", f"{function}/invocations-async/batch", {"events": events})
    return [result["request_id"] for result in answer["results"]]


def _described(data: Path, db: sqlite3.Connection, taken: set[str], accepted: set[str]) -> Filled:
    [[node]] = db.execute("SELECT value FROM meta WHERE name = 'node'")
    identity = Identity(node)
    id_of = identity.request_id
    waiting = "SELECT key FROM invocation JOIN function USING (function_id) WHERE state < 3 AND"
    owed = {f"{id_of(key)}-{delivery_id}" for delivery_id, key in db.execute("SELECT owed_id, key FROM owed")}
    [[last]] = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'function'")
    states = {id_of(key): state for key, state in db.execute("SELECT key, state FROM invocation")}
    return Filled(
        data=data,
        identity=identity,
        states=states,
        pruned=accepted - states.keys(),
        unready={id_of(key) for [key] in db.execute(f"{waiting} (name = 'paused' OR due > unixepoch() + 600)")},
        owed=owed,
        delivered=taken - {value[:36] for value in owed},
        last_function=last,
        pages=kinds_of_pages(data / "journal.db", dict(db.execute("SELECT rootpage, name FROM sqlite_schema"))),
    )


def kinds_of_pages(path: Path, owners: dict[int, str]) -> dict[str, list[int]]:
    """Return the pages of a database by table or index, and place in its tree. ``owners`` are the names of roots."""
    content, each = path.read_bytes(), PAGE // 5 + 1
    owners = {**owners, 1: "sqlite_schema"}
    kinds, parents = {"page 1": [1], "pointer map": list[int]()}, dict[int, tuple[int, int]]()
    for page in range(2, len(content) // PAGE + 1):
        of_map, entry = divmod(page - 2, each)
        at = (1 + of_map * each) * PAGE + 5 * entry - 5
        parents |= {page: (content[at], int.from_bytes(content[at + 1 : at + 5], "big"))} if entry else {}
        kinds["pointer map"] += [page] * (not entry)
    for page, (kind, _) in parents.items():
        top = page
        while top not in owners and top in parents and parents[top][1]:
            top = parents[top][1]
        below = "leaf" if content[(page - 1) * PAGE] in (10, 13) else "inner"
        place = {1: "root", 2: "free", 5: below}.get(kind, "overflow")
        kinds.setdefault(f"{owners.get(top, '')} {place}" if kind != 2 else "free list", []).append(page)
    return kinds
