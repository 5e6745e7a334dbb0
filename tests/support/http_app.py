"""HTTP API over a real socket, with test doubles behind it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from engine.app.api_wiring import build_families
from engine.app.parts import EngineParts
from engine.asgi.listener import listen
from engine.asgi.wire import App
from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry, load_plugins
from engine.config.settings import load_settings
from engine.errors import FunctiondError
from engine.functions.catalog import Catalog
from engine.http.api.health import HealthChecks
from engine.http.api.invocations import Invocations
from engine.http.audit import audited
from engine.http.auth import Authenticator
from engine.http.function_tokens import STORE as TOKENS
from engine.http.function_tokens import FunctionTokens
from engine.http.server import HttpServer
from engine.logs.feed import LogBoard
from engine.model import Function, Invocation, Outcome, Record, Request, State
from engine.model.clock import Clock, SystemClock
from engine.model.identity import Identity
from engine.model.signal import Signal
from engine.pipeline.cancellation import CancelStep
from engine.pipeline.redrive import Redrive
from engine.protocols import Count, Found, Outbox, Place, Selection, Standing
from engine.protocols.audit import AuditTrail
from engine.resources.facade import Resources
from engine.runtimes.interpreters import InterpreterInfo, Interpreters
from tests.doubles import MemoryStorage
from tests.doubles.executor import NoInstances
from tests.doubles.writes import MemoryWrites

PROJECT = "7aad83af3e8d42e99ac194e8419e2c9b"
REGION = "local-1"
BASE = f"/v2/{PROJECT}/fgs/functions"
SOURCE = "def handler(event, context):\n    return event\n"


def urn_of(name: str = "hello", version: str = ":latest") -> str:
    return f"urn:fss:{REGION}:{PROJECT}:function:default:{name}{version}"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


#: Body that creates a function which returns its event.
HELLO = {
    "func_name": "hello",
    "package": "default",
    "runtime": "Python3.10",
    "handler": "index.handler",
    "timeout": 3,
    "memory_size": 128,
    "code_type": "inline",
    "func_code": {"file": encoded(SOURCE)},
}


def zipped(**files: str | bytes) -> bytes:
    """Return a zip package with these files; ``__`` in a name stands for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return buffer.getvalue()


class Chunks(tuple[bytes, ...]):
    """Body that is sent in chunks."""


class Engine(NoInstances):
    """Double of intake, dispatcher, records and pool. Accepted invocations wait until ``finish`` ends them."""

    catalog: Catalog

    def __init__(self, identity: Identity, clock: Clock) -> None:
        super().__init__()
        self.identity, self.clock = identity, clock
        self.requests: list[Request] = []
        self.rows: dict[int, Record] = {}
        self.outcome = Outcome(result=b'"done"', log=b"said\n", started_at=1.0, ended_at=1.5, memory_used=1 << 20)
        self.refuses: Exception | None = None
        self.ahead: int | None = None
        self.cancel_steps: list[tuple[Selection, frozenset[State], Place, int]] = []
        self.waited = anyio.Event()
        self.logs: dict[str, bytes] = {}  #: complete logs by request id
        self.attempt_ended = Signal[[Function, Invocation, Outcome]]()
        self.closed = Signal[[]]()
        self._ends: dict[int, anyio.Event] = {}

    @property
    def cancellation(self) -> Self:
        return self

    async def accept(self, request: Request) -> str:
        function = self._admit(request)
        key = self.identity.next_key(self.clock.now())
        request_id = self.identity.request_id(key)
        self._ends[key] = anyio.Event()
        self.rows[key] = Record(
            key=key,
            request_id=request_id,
            function_id=function.function_id,
            version=function.version,
            alias=request.function.alias or "",
            source=request.source,
            trigger_id=request.trigger_id,
            cause=request.cause,
            state=State.WAIT,
            priority=request.priority,
            due_at=self.clock.now() + request.delay,
            payload=request.payload,
        )
        return request_id

    async def accept_each(self, requests: Sequence[Request]) -> Sequence[str | FunctiondError]:
        results: list[str | FunctiondError] = []
        for request in requests:
            try:
                results.append(await self.accept(request))
            except FunctiondError as error:
                results.append(error)
        return results

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        function = self._admit(request)
        return self.identity.request_id(self.identity.next_key(self.clock.now())), function, self.outcome

    def _admit(self, request: Request) -> Function:
        function = self.catalog.route(request.function, request.headers)
        if self.refuses:
            raise self.refuses
        self.requests.append(request)
        return function

    def finish(self, request_id: str, state: State = State.SUCCESS, code: int = 0, message: str = "") -> None:
        key = self.identity.key_of(request_id) or 0
        now = self.clock.now()
        changes = {"state": state, "code": code, "message": message, "started_at": now, "ended_at": now}
        self.rows[key] = replace(self.rows[key], attempt=1, result=b'"done"', **changes)
        self._ends[key].set()

    async def cancel(self, key: int) -> bool:
        if self.rows[key].state.final:
            return False
        self.finish(self.rows[key].request_id, State.FAIL, 4208, "function invocation canceled")
        return True

    async def step(self, selection: Selection, states: frozenset[State], after: Place, limit: int) -> CancelStep:
        self.cancel_steps.append((selection, states, after, limit))
        place = (after[0] + 1, 0.5, 7)
        return CancelStep(keys=tuple(self.rows)[:limit], reached=place if len(self.cancel_steps) < 3 else None)

    async def ended(self, key: int, timeout: float) -> None:  # noqa: ASYNC109  (the seam says so)
        self.waited.set()
        with anyio.move_on_after(timeout):
            await self._ends[key].wait()

    def find_run(self, key: int, instance: str) -> None:
        return None

    def progress(self, key: int) -> tuple[float, str] | None:
        return None

    def running_log(self, key: int, attempt: int | None = None) -> bytes | None:
        return None

    async def log(self, function_id: int, request_id: str, attempt: int) -> bytes | None:
        return self.logs.get(request_id if attempt == 1 else f"{request_id}.{attempt}")

    async def instance_log(self, function_id: int) -> bytes:
        return self.logs.get("", b"")

    def alive(self, functions: Iterable[int]) -> int:
        return 0

    async def check_runtime(self, runtime: str) -> None:
        await Interpreters().find(runtime)

    async def interpreters(self, runtime: str) -> list[InterpreterInfo]:
        return []

    incomplete = False
    files: Any = None  #: of logs, which nothing here deletes

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        matching = [row for row in self.rows.values() if _matches(row, selection)]
        return matching[selection.offset : selection.offset + selection.limit], len(matching)

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        matching = [row for row in self.rows.values() if _matches(row, selection) and (not start or row.key > start[2])]
        last = (0, 0.0, matching[:limit][-1].key) if matching else None
        return Found(records=tuple(matching[:limit]), read=len(matching), last=last, more=len(matching) > limit)

    async def count(self, selection: Selection, most: int) -> Count:
        return Count(rows=sum(_matches(row, selection) for row in self.rows.values()))

    async def get(self, key: int) -> Record | None:
        return self.rows.get(key)

    async def standing(self, key: int, most: int) -> Standing:
        return Standing(ahead=self.ahead)


async def _metrics(project: str | None) -> bytes:
    return b"up 1\n"


def _matches(row: Record, selection: Selection) -> bool:
    return (
        row.function_id == selection.function_id
        and selection.version in ("", row.version)
        and selection.alias in ("", row.alias)
        and selection.trigger_id in ("", row.trigger_id)
        and (not selection.states or row.state in selection.states)
        and (selection.keys is None or row.key in selection.keys)
        and selection.begin <= row.accepted_at <= selection.end
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Api(Struct, kw_only=True):
    """API of an engine whose intake, dispatcher, records and instances are a double, and a client of it."""

    parts: EngineParts
    engine: Engine
    storage: MemoryStorage
    writes: MemoryWrites  #: of the storage
    health: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    @property
    def catalog(self) -> Catalog:
        return self.parts.catalog

    @property
    def codes(self) -> CodeStore:
        return self.parts.codes

    @property
    def resources(self) -> Resources:
        return self.parts.resources

    @property
    def audit(self) -> AuditTrail:
        return self.parts.audit

    @property
    def board(self) -> LogBoard:
        return self.parts.logs

    def app(self, *, intake: Any = None, authenticator: Authenticator | None = None) -> App:
        """Return the application. ``intake`` replaces that of single requests."""
        health = HealthChecks(alive=lambda: self.health, ready=lambda: self.health, metrics=_metrics)
        intake = intake or self.engine
        invocations = Invocations(intake, self.catalog, REGION, async_limit=256 << 10, sync_limit=6 << 20)
        families = audited(build_families(self.parts, health), self.audit, self.parts.clock)
        return HttpServer(invocations, families, REGION, authenticator=authenticator)

    async def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, base: str = BASE
    ) -> Answer:
        """Send one request; a body other than bytes and Chunks is sent as JSON."""
        given = dict(headers or {})
        data = body if isinstance(body, bytes | Chunks) or body is None else json.dumps(body).encode()
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        return await anyio.to_thread.run_sync(self._send, method, base + path, data, given)

    def _send(self, method: str, path: str, data: bytes | Chunks | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    async def create(self, name: str = "hello", **fields: object) -> Answer:
        return await self.send("POST", "", {**HELLO, "func_name": name, **fields})

    async def invoke(self, name: str = "hello", body: object = None, **headers: str) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.send("POST", f"/{urn_of(name)}/invocations-async", body, named)


@cache
def _registry() -> Registry:
    return Registry(load_plugins())


@asynccontextmanager
async def serve(
    folder: Path, *, shared_dependencies: Sequence[str] = (), outbox: Outbox | None = None
) -> AsyncIterator[Api]:
    settings = load_settings(
        overrides={
            "storage.data_dir": str(folder),
            "storage.backup_dir": str(folder.parent),
            "storage.free_space": 0,
            "executor.long_time_functions": ["slow"],
            "executor.memory": 1 << 20,
            "limits.reserved_instances": 90,
            "shared_dependencies": list(shared_dependencies),
        }
    )
    writes, clock = MemoryWrites(), SystemClock()
    storage = MemoryStorage(node=7, writes=writes)
    double: Any = Engine(storage.identity, clock)
    storage.records, storage.outbox = double, outbox or storage.outbox
    parts = EngineParts(
        settings=settings,
        clock=clock,
        storage=storage,
        pool=double,
        codes=CodeStore(folder),
        registry=_registry(),
        board=LogBoard(),
        tls=None,
        function_sockets=[],
        function_tokens=FunctionTokens(storage.store(TOKENS), "none"),
    )
    double.catalog, parts.intake, parts.dispatcher = parts.catalog, double, double
    parts.redrive = Redrive(storage.records, parts.intake, parts.catalog, storage.identity, REGION)
    parts.catalog.changed.connect(parts.resources.triggers.follow)
    parts.catalog.changed.connect(parts.resources.follow)
    await parts.resources.load()
    api = Api(parts=parts, engine=double, storage=storage, writes=writes)
    async with listen(api.app(), "127.0.0.1", 0) as api.port:
        yield api
