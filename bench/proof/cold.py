"""Cold trials of one bad page: an engine starts on it under load, then ``functiond recover`` and another start follow.

The engine goes on, or drains and exits with 2, or refuses the start; it never crawls. Afterwards, each acknowledged
invocation is there or was listed as lost, has run if it could, and no outcome is delivered twice.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from random import Random

from msgspec import Struct, field

from bench.proof.clients import ECHO, STREAM, path_of
from bench.proof.cold_data import LATER, PAGE, TAKEN, Filled, Receiver, fill
from bench.proof.lives import ENVIRONMENT, temporary
from bench.server import PROJECT, Engine, ServerFailed
from engine.cli.output import USAGE

_APART = 40  #: trials between the first ones of two seeds
LOAD, SLOW = 3.0, 10.0  #: seconds of load, and of a call that crawls
UNDER_WAY = 3.0  #: seconds before the end of the engine in which a delivery was perhaps not stored, and is repeated
QUIET = 90.0  #: seconds in which nothing ends any more; a delivery that met a damaged page waits a minute
DRAIN = 5  #: seconds in which accepted work may end
HOW = ("bytes 0xa5", "zeros", "a flipped bit")
WENT_ON, DEGRADED, STOPPED, REFUSED = "went on", "went on, degraded", "drained, exit 2", "refused"
_RECORD = {"stream_name": STREAM, "records": [{"data": "eA==", "partition_key": "k"}]}
_SETTINGS = {**ENVIRONMENT, "FUNCTIOND_STORAGE__DRAIN": str(DRAIN)}


class Trial(Struct, kw_only=True):
    """Page and its damage, the end of the cold engine, and broken promises."""

    page: str
    how: str
    number: int
    end: str = ""
    lost: int = 0  #: rows that the recovery has listed
    slowest: float = 0.0  #: seconds of a call
    accepted: dict[str, int] = field(default_factory=dict)  #: answers by status
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page} (page {self.number}), {self.how}: {self.end}, {self.lost} rows listed"


def cold_trials(folder: Path, seed: int, trials: int) -> Iterator[Trial]:
    """Damage one page of each kind in turn, in another way each time, and yield the trials."""
    receiver, random = Receiver(), Random(seed)
    with receiver.running():
        filled = fill(folder, receiver, seed)
        begin, kinds = (seed - 1) * _APART, sorted(filled.pages)
        for n in range(begin, begin + trials):
            page, how = kinds[n % len(kinds)], HOW[(n + n // len(kinds)) % len(HOW)]
            trial = Trial(page=page, how=how, number=random.choice(filled.pages[page]))
            with temporary() as scratch:
                data = Path(shutil.copytree(filled.data, scratch / "data"))
                damage(data / "journal.db", trial, random)
                with suppress(ServerFailed):
                    _Run(trial, data, filled, receiver).run()
            yield trial


def damage(path: Path, trial: Trial, random: Random) -> None:
    with path.open("r+b") as file:
        file.seek((trial.number - 1) * PAGE)
        content = bytearray(file.read(PAGE))
        if trial.how == HOW[2]:
            content[random.randrange(PAGE)] ^= 1 << random.randrange(8)
        else:
            content[:] = (b"\xa5" if trial.how == HOW[0] else b"\0") * PAGE
        file.seek((trial.number - 1) * PAGE)
        file.write(content)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *command], capture_output=True, text=True)


class _Run:
    def __init__(self, trial: Trial, data: Path, filled: Filled, receiver: Receiver) -> None:
        self._trial, self._data, self._filled, self._receiver = trial, data, filled, receiver
        self._accepted = list[str]()  #: request ids
        self._id_of = filled.identity.request_id
        self._answers = Counter[int]()
        self._ended = 0.0  #: time at which the cold engine was told to stop, or ended by itself
        receiver.taken.clear()
        receiver.takes_all = False

    def run(self) -> None:
        self._trial.end = self._start_cold()
        losses = self._recover()
        self._check(losses, self._start_again())

    def _fail(self, problem: str) -> None:
        self._trial.problems.append(problem)

    # --- cold engine ----------------------------------------------------------------------------------------

    def _start_cold(self) -> str:
        """Return how the engine on the damaged directory ends."""
        server = Engine(self._data, **_SETTINGS)
        try:
            try:
                server.wait_until_serving()
            except ServerFailed:
                self._check_exit(server, "the refused start")
                return REFUSED
            with ThreadPoolExecutor(3) as threads:
                for future in [threads.submit(self._load, server, n) for n in range(3)]:
                    future.result()
            self._trial.accepted = {str(status): number for status, number in self._answers.items()}
            if self._trial.slowest > SLOW:
                self._fail(f"a call took {self._trial.slowest:.1f} s")
            ready = self._ask(server, "GET", "/readyz")
            if server.wait(0) is None and ready == 200:
                refused = [status for status in (self._post(server, n, -1) for n in range(20)) if status >= 500]
                ready = self._ask(server, "GET", "/readyz")
                if refused and ready == 200:
                    self._fail(f"{len(refused)} of 20 events are refused while /readyz says 200")
            if ready == 200 and server.wait(0) is None:
                degraded, self._ended = server.metric("journal_damaged") > 0, time.perf_counter()
                server.stop()
                return DEGRADED if degraded else WENT_ON
            if server.wait(DRAIN + 20) is None:
                self._fail("the engine takes no events, and does not end")
            else:
                self._ended = time.perf_counter()
                self._check_exit(server, "the drained engine")
            return STOPPED
        finally:
            server.kill()

    def _check_exit(self, server: Engine, what: str) -> None:
        code, log = server.wait(0), server.log
        if code != USAGE or "functiond recover" not in log or "Traceback" in log:
            self._fail(f"{what} ended with {code}: {log[-1500:]}")

    def _load(self, server: Engine, client: int) -> None:
        """Send events, and read lists, records and streams, for some seconds."""
        end, records, numbers = time.perf_counter() + LOAD, sorted(self._filled.states), count(client, 3)
        reads = ("async-invocations?limit=50", "active-async-invocations", "async-invocations?status=FAIL&limit=20")
        while time.perf_counter() < end:
            n = next(numbers)
            if n % 4:
                self._answers[self._post(server, n, client)] += 1
            else:
                name = (TAKEN, LATER, "plain", "slow", "fails", "paused")[n // 4 % 6]
                read = (*reads, f"async-invocations/{records[n * 37 % len(records)]}")[n // 4 % 4]
                self._ask(server, "GET", f"{path_of(name)}/{read}")
                self._ask(server, "POST", f"/v2/{PROJECT}/records", _RECORD)
            time.sleep(0.005)

    def _post(self, server: Engine, n: int, client: int) -> int:
        name = (TAKEN, "plain", "chain", "slow", LATER, "fails", TAKEN)[n % 7]
        headers = {"Idempotency-Key": f"cold {client} {n}"} if n % 2 else {}
        headers |= {"X-Functiond-Ordering-Key": "k1"} if name == "slow" else {}
        headers |= {"X-Functiond-Delay": "1"} if n % 5 == 0 else {}
        event = {"n": n, "text": "x" * (n % 3000)}
        return self._ask(server, "POST", f"{path_of(name)}/invocations-async", event, **headers)

    def _ask(self, server: Engine, method: str, path: str, body: object = None, **headers: str) -> int:
        """Return the status of an answer, or 0 if none comes. Note the request id of an accepted event."""
        connection, began = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2 * SLOW), time.perf_counter()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
            self._trial.slowest = max(self._trial.slowest, time.perf_counter() - began)
        if answer.status == 202:
            self._accepted.append(json.loads(text)["request_id"])
        return answer.status

    # --- recovery -------------------------------------------------------------------------------------------

    def _recover(self) -> set[str]:
        """Return the ids of lost rows."""
        command = ["recover", str(self._data), "--yes", "--json"]
        done = _run(*command)
        if "--request-id" in done.stderr:
            done = _run(*command, "--request-id", min(self._filled.states))
        if done.returncode not in (0, 1):
            self._fail(f"the recovery ended with {done.returncode}: {done.stderr[-1000:]}")
            raise ServerFailed
        losses = json.loads(done.stdout)["losses"]
        self._trial.lost = len(losses)
        return {loss["id"] for loss in losses}

    def _start_again(self) -> int:
        """Let the recovered engine do all that it can. Return the id of a new function."""
        self._receiver.takes_all = True
        server = Engine(self._data, **_SETTINGS)
        try:
            server.wait_until_serving()
            server.deploy("new", ECHO)
            before, changed = self._due(), time.perf_counter()
            while before and time.perf_counter() < changed + QUIET:
                time.sleep(0.5)
                if (after := self._due()) != before:
                    before, changed = after, time.perf_counter()
            server.stop()
        except ServerFailed as failure:
            self._fail(f"the recovered engine: {failure}")
            raise
        finally:
            server.kill()
        verified = _run("verify", str(self._data))
        known = (" ", "payload: the payload of the unfinished invocation")  # of paused ones, and the next step
        if verified.returncode and any(not line.startswith(known) for line in verified.stdout.splitlines()):
            self._fail(f"verify: {verified.stdout[-500:]}{verified.stderr[-500:]}")
        return int(self._rows("SELECT function_id FROM function WHERE name = 'new'")[0][0])

    def _rows(self, sql: str) -> list[tuple[int, ...]]:
        with closing(sqlite3.connect(f"{(self._data / 'journal.db').as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(sql).fetchall()

    def _states(self) -> dict[str, int]:
        return {self._id_of(key): state for key, state in self._rows("SELECT key, state FROM invocation")}

    def _due(self) -> set[str]:
        """Return the request ids that have not ended, or whose outcome is not delivered, although they could."""
        waiting = {request_id for request_id, state in self._states().items() if state < 3} - self._filled.unready
        return waiting | {self._id_of(key) for [key] in self._rows("SELECT key FROM owed WHERE due IS NOT NULL")}

    def _check(self, lost: set[str], new_function: int) -> None:
        filled, states = self._filled, self._states()
        listed = lost | {value[:36] for value in lost}  # those of deliveries have further values
        known = states.keys() | listed
        taken = {value[:36]: at for value, at in reversed(self._receiver.taken)}  # first
        again = {value[:36] for value, at in self._receiver.taken if at > taken[value[:36]]}
        owed = {self._id_of(key) for [key] in self._rows("SELECT key FROM owed")}
        problems = {
            "neither there nor listed": {*filled.states, *self._accepted} - known,
            "there again after it was pruned": filled.pruned & states.keys(),
            "not at its end": self._due() - listed,
            "whose outcome is neither delivered nor owed nor listed": (
                {value[:36] for value in filled.owed} - taken.keys() - owed - listed
            ),
            "whose outcome is delivered again": filled.delivered & taken.keys(),
            "whose outcome is delivered twice": {
                request_id for request_id in again if taken[request_id] < self._ended - UNDER_WAY
            },
        }
        for what, ids in problems.items():
            if ids:
                self._fail(f"{len(ids)} invocations are {what}: {sorted(ids)[:3]}")
        if new_function <= filled.last_function:
            self._fail(f"the function id {new_function} is used again")
