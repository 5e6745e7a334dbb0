"""Engine in a process of its own, with an HTTP client. Can be stopped and killed. Standard library only."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, NamedTuple, Self, TypeVar

T = TypeVar("T")

PROJECT = "project1"
REGION = "local-1"
BASE = f"/v2/{PROJECT}/fgs/functions"
ECHO = "def handler(event, context):\n    return event\n"
#: No reserved disk space, and short retry delays.
QUICK = {
    "FUNCTIOND_STORAGE__FREE_SPACE": "0",
    "FUNCTIOND_STORAGE__BALLAST": "0",
    "FUNCTIOND_RETRY__BASE": "0.05",
    "FUNCTIOND_GRACE": "5",
    "FUNCTIOND_EXECUTOR__ISOLATION": "process",  # the functions of most tests write to files of the host
}
#: Function that writes its request id to the file ``runs``, and returns when the file ``gate`` appears.
HELD = """
import os, time

def handler(event, context):
    with open(event["runs"], "a") as file:
        file.write(context.getRequestID() + "\\n")
    while not os.path.exists(event["gate"]):
        time.sleep(0.02)
    return "ended"
"""


#: Function that reads a file, or writes to it.
FILES = """
def handler(event, context):
    with open(event["path"], "w" if "text" in event else "r") as file:
        return file.write(event["text"]) if "text" in event else file.read()
"""


def held_event(folder: Path) -> dict[str, str]:
    """Return the event of a run of ``HELD`` that ends when ``folder``/gate exists."""
    return {"runs": str(folder / "runs"), "gate": str(folder / "gate")}


def begun(folder: Path, count: int) -> list[str]:
    """Wait until ``count`` runs have written to ``folder``/runs; return all that they wrote."""

    def written() -> list[str]:
        file = folder / "runs"
        runs = file.read_text().split() if file.exists() else []
        return runs if len(runs) >= count else []

    return until(written)


def until(look: Callable[[], T | Literal[False]]) -> T:
    """Return the first true value of ``look``. Fail after a minute. Only for states that send no event."""
    deadline = monotonic() + 60
    while not (value := look()):
        assert monotonic() < deadline, f"after a minute, it is still {value!r}"
        sleep(0.02)
    return value


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def folders(home: Path, **more: str) -> dict[str, str]:
    """Return the settings of the folders images and out of the host, and of others."""
    given = {"IMAGES__PATH": str(home / "images"), "OUT__PATH": str(home / "out"), "OUT__MODE": "rw", **more}
    return {f"FUNCTIOND_EXECUTOR__FOLDERS__{name}": value for name, value in given.items()}


def urn_of(name: str) -> str:
    return f"urn:fss:{REGION}:{PROJECT}:function:default:{name}:latest"


def to(kind: str, **param: object) -> dict[str, str]:
    """Return a destination as asynchronous settings have it."""
    return {"destination": kind, "param": json.dumps(param)}


def to_function(name: str) -> dict[str, str]:
    return to("FunctionGraph", func_urn=urn_of(name))


class EngineProcess:
    """Engine on a data directory; can be restarted after its end. Settings are environment variables."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.prefix: list[str] = []  #: program that executes the interpreter, with its arguments
        self.program = ["-m", "engine"]  #: arguments of the interpreter
        self.log: list[str] = []
        self.headers: dict[str, str] = {}  #: sent with every request
        self.port = 0
        self.asked_port = 0  #: to listen on; 0: any
        self._settings = {"FUNCTIOND_STORAGE__BACKUP_DIR": str(data.parent), **QUICK, **settings}
        self._process: subprocess.Popen[str] | None = None
        self._reader = ThreadPoolExecutor(1)
        self._read: Future[None] | None = None

    # --- process -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the engine and return when it serves. Raise AssertionError with its log if it exits before."""
        self.port = self.launch().result(60)
        return self

    def launch(self) -> Future[int]:
        """Start the engine without waiting; the returned future holds its port once it serves."""
        serve = ["serve", "--port", str(self.asked_port), "--data-dir", str(self.data)]
        command = [*self.prefix, sys.executable, *self.program, *serve]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUNCTIOND_")}
        environment = {**inherited, **self._settings, "FUNCTIOND_LOG__FORMAT": "json"}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True
        )
        serving: Future[int] = Future()
        self.log.clear()
        self._read = self._reader.submit(self._follow, serving)
        return serving

    def _follow(self, serving: Future[int]) -> None:
        """Read the log to its end, so that a full pipe does not block the engine."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if '"event":"serving"' in line.replace(" ", "") and not serving.done():
                    serving.set_result(json.loads(line)["port"])
        if not serving.done():
            serving.set_exception(AssertionError(f"the engine ended: {''.join(self.log)}"))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self, *, children: bool = False) -> None:
        """Send SIGKILL; with ``children``, to all descendants as well."""
        pids = descendants(self.pid) if children else []
        self.signal(signal.SIGKILL)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait()

    def wait(self) -> int:
        assert self._process is not None
        assert self._read is not None
        code = self._process.wait(60)
        self._read.result(60)
        return code

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill(children=True)
        self._reader.shutdown()

    # --- requests ------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Reply:
        """Send one request on a new connection. ``body`` is sent as JSON, bytes unchanged."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **self.headers, **(headers or {})}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request(method, path, content, sent)
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create(self, name: str, source: str, **fields: object) -> None:
        body = {
            "func_name": name,
            "package": "default",
            "runtime": "Python3.10",
            "handler": "index.handler",
            "timeout": 300,
            "memory_size": 128,
            "code_type": "inline",
            "func_code": {"file": base64.b64encode(source.encode()).decode()},
            **fields,
        }
        reply = self.ask("POST", BASE, body)
        assert reply.status == 200, reply

    def delete(self, name: str) -> None:
        """Delete a function with its versions and records."""
        reply = self.ask("DELETE", f"{BASE}/{urn_of(name).removesuffix(':latest')}")
        assert reply.status == 204, reply

    def delete_all(self) -> None:
        for function in self.ask("GET", BASE).json["functions"]:
            self.delete(function["func_name"])

    def result(self, name: str, path: Path, **event: str) -> str:
        return self.ask("POST", f"{BASE}/{urn_of(name)}/invocations", {"path": str(path), **event}).body.decode()

    def trigger(self, name: str, kind: str, data: object, **fields: object) -> Any:
        """Create a trigger of a function, and return it as the API shows it."""
        body = {"trigger_type_code": kind, "event_data": data, **fields}
        reply = self.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of(name)}", body)
        assert reply.status == 201, reply
        return reply.json

    def configure(self, name: str, **settings: object) -> None:
        """Store asynchronous settings of a function."""
        reply = self.ask("PUT", f"{BASE}/{urn_of(name)}/async-invoke-config", settings)
        assert reply.status == 200, reply

    def send(self, name: str, event: object = None, **headers: str) -> Reply:
        """Invoke asynchronously. Header names are given with underscores."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask("POST", f"{BASE}/{urn_of(name)}/invocations-async", event or {}, headers=named)

    def accepted(self, name: str, event: object = None, **headers: str) -> str:
        reply = self.send(name, event, **headers)
        assert reply.status == 202, reply
        request_id: str = reply.json["request_id"]
        return request_id

    def record(self, name: str, request_id: str, wait: float = 0) -> Any:
        """Return the complete record of an invocation; with ``wait``, wait so many seconds for its end."""
        path = f"{BASE}/{urn_of(name)}/async-invocations/{request_id}?wait={wait:g}"
        reply = self.ask("GET", path, timeout=60 + wait)
        assert reply.status == 200, reply
        return reply.json

    def cancel(self, name: str, request_id: str) -> Reply:
        return self.ask("POST", f"{BASE}/{urn_of(name)}/cancel", {"request_id": request_id, "type": "force"})

    def metric(self, name: str) -> float:
        """Return the value of a metric; with labels, of its first sample."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name) and not line.startswith("#"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no figure {name}")


class ClockedEngine(EngineProcess):
    """Engine whose clock tests set, also while it runs."""

    def __init__(self, data: Path, **settings: str) -> None:
        super().__init__(data, **settings)
        self._ahead = data.parent / "ahead"
        self.set_clock(0)
        self.program = [str(Path(__file__).with_name("wrong_clock.py")), str(self._ahead)]

    def set_clock(self, ahead: float) -> None:
        """Set the clock so many seconds ahead of the right one."""
        self._ahead.with_suffix(".new").write_text(str(ahead))
        self._ahead.with_suffix(".new").rename(self._ahead)


@contextmanager
def engine_on(data: Path, **settings: str) -> Iterator[EngineProcess]:
    """Run an engine; kill it and all its descendants when the block is left."""
    engine = EngineProcess(data, **settings)
    try:
        yield engine.start()
    finally:
        engine.close()


def descendants(pid: int) -> list[int]:
    """Return all running descendants of a process."""
    pids: list[int] = []
    waiting = [pid]
    while waiting:
        tasks = Path(f"/proc/{waiting.pop()}/task")
        try:
            children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        except OSError:
            continue
        pids += children
        waiting += children
    return pids


def is_alive(pid: int) -> bool:
    """Return True if the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def rows(data: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Read rows from the journal of an engine, running or not."""
    with closing(sqlite3.connect(f"file:{data}/journal.db?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(sql, values).fetchall()


def make_due(data: Path) -> None:
    """Move the due times of all invocations of a stopped engine back by 25 minutes."""
    with closing(sqlite3.connect(data / "journal.db")) as database, database:
        database.execute("UPDATE invocation SET first_due = first_due - 1500, due = due - 1500, rank = rank - 1500")


#: Rows and bytes of waiting and ended invocations, counted from the rows; must equal the table ``tally``.
REAL_TALLY = """
SELECT function_id, count(*), sum(size) FROM invocation WHERE state < 3 GROUP BY function_id
UNION ALL
SELECT 0, count(*), sum(size + coalesce((SELECT length(body) + length(log) FROM result r WHERE r.key = i.key), 0))
    + (SELECT coalesce(sum(length(log)), 0) FROM attempt)
FROM invocation i WHERE state >= 3 HAVING count(*) > 0
"""
TALLY = "SELECT function_id, rows, size FROM tally WHERE function_id >= 0 AND (rows <> 0 OR size <> 0)"
