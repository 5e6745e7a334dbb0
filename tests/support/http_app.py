"""HTTP API over a real socket, with test doubles behind it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from engine.asgi.listener import listen
from engine.asgi.wire import App
from engine.code.store import NO_CODE, CodeStore
from engine.config.plugin_registry import Registry, load_plugins
from engine.errors import FunctiondError
from engine.executors.pool import Pool
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import FunctionRules, listed
from engine.functions.versions import Versions
from engine.http.api.async_settings import AsyncSettingsApi
from engine.http.api.backups import BackupsApi
from engine.http.api.controls import ControlsApi
from engine.http.api.deliveries import DeliveriesApi
from engine.http.api.dependencies import DependenciesApi
from engine.http.api.events import EventsApi
from engine.http.api.functions import Functions
from engine.http.api.health import ClockApi, HealthApi, HealthChecks
from engine.http.api.invocation_actions import InvocationActionsApi
from engine.http.api.invocations import Invocations
from engine.http.api.logs import LogsApi
from engine.http.api.metrics import MetricsApi
from engine.http.api.packages import PackagesApi
from engine.http.api.project_lists import ProjectListsApi
from engine.http.api.records import InvocationRecords
from engine.http.api.reserved_instances import ReservedApi
from engine.http.api.routing import ApiFamily
from engine.http.api.tags import TagsApi
from engine.http.api.tracing_and_snapshots import TracingAndSnapshotsApi
from engine.http.api.triggers import TriggersApi
from engine.http.api.versions import AliasesApi, VersionsApi
from engine.http.audit import audited
from engine.http.auth import Authenticator
from engine.http.openapi import Document
from engine.http.operations import OPERATIONS
from engine.http.server import HttpServer
from engine.logs.feed import LogBoard
from engine.maintenance.backup import Backups
from engine.maintenance.clock_guard import ClockGuard
from engine.metrics.loop_lag import LoopLag
from engine.metrics.usage import Usage
from engine.model import DestinationSpec, Function, Invocation, Outcome, PendingDelivery, Record, Request, State
from engine.model.clock import SystemClock
from engine.model.identity import Identity
from engine.model.signal import Signal
from engine.pipeline.cancellation import Cancellation, CancelStep
from engine.pipeline.circuit_breaker import DeliveryStatus, DestinationStatus
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.explanation import Explainer, Explanation, Reason
from engine.pipeline.failed_deliveries import FailedDeliveries
from engine.pipeline.intake import Intake
from engine.pipeline.redrive import Redrive
from engine.pipeline.status_log import StatusLogWorker
from engine.protocols import Count, Found, Place, Purged, Queued, Scan, Selection, Standing
from engine.protocols.audit import AuditTrail
from engine.resources.dependencies import DependencyRepository
from engine.resources.facade import ResourceOptions, Resources
from engine.runtimes.interpreters import InterpreterInfo, Interpreters
from engine.scheduling.backlog import Backlog, DiskGuard, Limits
from engine.triggers.plugin_contexts import PluginContexts
from engine.triggers.routes import ListenOptions
from engine.triggers.sources import Sources
from tests.doubles import MemoryCatalogStore, MemoryStorage
from tests.doubles.executor import NoInstances
from tests.doubles.store import MemoryResourceStore
from tests.doubles.writes import MemoryWrites

NO_ROOM = Limits(rows=0, size=0, function_rows=0, function_size=0, sync_rows=0, sync_size=0)
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


class Engine:
    """Double of intake, dispatcher and records. Accepted invocations wait until ``finish`` ends them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.identity, self.clock = catalog, Identity(node=7), SystemClock()
        self.requests: list[Request] = []
        self.rows: dict[int, Record] = {}
        self.outcome = Outcome(result=b'"done"', log=b"said\n", started_at=1.0, ended_at=1.5, memory_used=1 << 20)
        self.refuses: Exception | None = None
        self.ahead: int | None = None
        self.cancel_steps: list[tuple[Selection, frozenset[State], Place, int]] = []
        self.waited = anyio.Event()
        self.reported: dict[int, tuple[float, str]] = {}  #: progress, by key
        self.logs: dict[str, bytes] = {}  #: complete logs by request id
        self._ends: dict[int, anyio.Event] = {}

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

    async def explain(self, record: Record) -> Explanation:
        return Explanation(record=record, ahead=self.ahead, reasons=(Reason(reason="order", text="others first"),))

    async def ended(self, key: int, timeout: float) -> None:  # noqa: ASYNC109  (the seam says so)
        self.waited.set()
        with anyio.move_on_after(timeout):
            await self._ends[key].wait()

    def progress(self, key: int) -> tuple[float, str] | None:
        return self.reported.get(key)

    def running_log(self, key: int, attempt: int | None = None) -> bytes | None:
        return None

    async def log(self, request_id: str, attempt: int) -> bytes | None:
        return self.logs.get(request_id if attempt == 1 else f"{request_id}.{attempt}")

    async def instance_log(self, function_id: int) -> bytes:
        return self.logs.get("", b"")

    incomplete = False

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        found = [row for row in self.rows.values() if _matches(row, selection)]
        return found[selection.offset : selection.offset + selection.limit], len(found)

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        found = [row for row in self.rows.values() if _matches(row, selection) and (not start or row.key > start[2])]
        last = (0, 0.0, found[:limit][-1].key) if found else None
        return Found(records=tuple(found[:limit]), read=len(found), last=last, more=len(found) > limit)

    async def count(self, selection: Selection, most: int) -> Count:
        return Count(rows=sum(_matches(row, selection) for row in self.rows.values()))

    async def get(self, key: int) -> Record | None:
        return self.rows.get(key)

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        return ()

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        return ()

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        return Scan(keys=(), reached=None)

    async def standing(self, key: int, most: int) -> Standing:
        return Standing()

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        return {}

    async def newest(self, before: float) -> float | None:
        return None

    async def purge(self, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        return Purged(request_ids=(), more=False, next_due=None)


async def _no_interpreters(runtime: str) -> list[InterpreterInfo]:
    return []


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


class NoDeliveries:
    """Double of deliveries: none is pending, no destination fails."""

    def probe(self, destinations: Iterable[DestinationSpec]) -> None: ...

    def delivery_status(self, pending: PendingDelivery) -> DeliveryStatus:
        return DeliveryStatus()

    def destination_status(self, destination: DestinationSpec) -> DestinationStatus:
        return DestinationStatus()


class NoSources:
    """Double of the sources of triggers: none has started."""

    def state(self, trigger_id: str) -> None:
        return None

    async def settled(self, trigger_id: str) -> None: ...


class Api(Struct, kw_only=True):
    """API over doubles of its engine, and a client of it."""

    catalog: Catalog
    codes: CodeStore
    resources: Resources
    store: MemoryCatalogStore
    kept: MemoryResourceStore
    writes: MemoryWrites  #: of both stores
    engine: Engine
    audit: AuditTrail = field(default_factory=AuditTrail)
    board: LogBoard = field(default_factory=LogBoard)
    attempt_ended: Signal[[Function, Invocation, Outcome]] = field(default_factory=Signal)
    health: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    kept_deliveries: MemoryStorage = field(default_factory=MemoryStorage)

    def app(self, *, engine: Engine | None = None, authenticator: Authenticator | None = None) -> App:
        """Return the application. ``engine`` replaces the double of intake, dispatcher and records."""
        engine = engine or self.engine
        intake = cast("Intake", engine)
        invocations = Invocations(intake, self.catalog, REGION, async_limit=256 << 10, sync_limit=6 << 20)
        families = audited(self.families(engine), self.audit, engine.clock)
        return HttpServer(invocations, families, REGION, authenticator=authenticator)

    def plugins(self, storage: MemoryStorage) -> PluginContexts:
        return PluginContexts(
            _registry(),
            storage.store,
            self.engine.clock,
            region=REGION,
            callers=cast(Any, None),  # nothing listens
            audit=cast(Any, None),
            logs=cast(Any, None),
            listening=ListenOptions(lag=LoopLag()),
        )

    def families(self, engine: Engine) -> list[ApiFamily]:
        storage = MemoryStorage()
        clock_guard = ClockGuard(
            clock=engine.clock, records=storage.records, store=storage.store("clock"), tolerance=1.0
        )
        catalog, resources, clock, identity = self.catalog, self.resources, engine.clock, engine.identity
        bound_to, reservations = resources.triggers.bound_to, resources.reservations
        usage = Usage(clock, Backlog(NO_ROOM), catalog.project_of)
        versions = Versions(catalog, self.store, self.codes, clock, identity, bound_to)
        health = HealthChecks(alive=lambda: self.health, ready=lambda: self.health, metrics=_metrics)
        storage = MemoryStorage()
        data = self.codes.folder(NO_CODE)
        backups = Backups(data, storage.copy_to, below=data.parent, keep_free=0, clock=clock, version="")
        guard = DiskGuard(self.codes.folder(NO_CODE), 0, clock)
        states = StatusLogWorker(storage.status_log, catalog, self.board, guard, REGION)
        intake, dispatcher, pool = cast("Intake", engine), cast("Dispatcher", engine), cast("Pool", engine)
        cancellation, explainer = cast("Cancellation", engine), cast("Explainer", engine)
        deliveries = cast("DeliveryWorker", NoDeliveries())
        redrive = Redrive(
            outbox=self.kept_deliveries.outbox,
            records=engine,
            intake=intake,
            catalog=catalog,
            identity=identity,
            clock=clock,
            region=REGION,
            deliveries=deliveries,
        )
        controls = FunctionControls(catalog, self.kept)
        failed = FailedDeliveries(self.kept_deliveries.outbox, catalog, redrive)
        return [
            Functions(catalog, controls, versions, self.codes, usage, reservations, REGION),
            VersionsApi(catalog, versions, REGION),
            AliasesApi(catalog, Aliases(catalog, self.kept, clock, bound_to), REGION),
            InvocationRecords(catalog, controls, engine, identity, dispatcher, pool, clock, explainer),
            LogsApi(catalog, engine, identity, dispatcher, self.board, pool, self.attempt_ended.connected),
            DeliveriesApi(redrive, failed, deliveries, catalog, identity, REGION),
            AsyncSettingsApi(catalog, self.board, states, REGION),
            ControlsApi(controls),
            InvocationActionsApi(catalog, redrive, cancellation, identity, clock, 256 << 10),
            TriggersApi(resources.triggers, cast("Sources", NoSources()), self.plugins(storage), storage.cursors),
            ReservedApi(reservations, REGION),
            EventsApi(resources.events),
            DependenciesApi(resources.dependencies, self.codes),
            TagsApi(resources.tags, catalog, REGION),
            PackagesApi(catalog, self.codes, REGION),
            MetricsApi(catalog, usage, reservations, lambda functions: 0, clock, REGION),
            ProjectListsApi(catalog, reservations, lambda functions: 0, Interpreters().check, _no_interpreters),
            TracingAndSnapshotsApi(catalog, resources.tracing),
            BackupsApi(backups),
            ClockApi(clock_guard),
            HealthApi(health),
            Document(OPERATIONS, "", lambda: ()),
        ]

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
async def serve(folder: Path, *, shared_dependencies: Sequence[str] = ()) -> AsyncIterator[Api]:
    writes, codes, clock = MemoryWrites(), CodeStore(folder), SystemClock()
    kept = MemoryResourceStore(writes)
    store = MemoryCatalogStore(kept, writes)
    dependencies = DependencyRepository(kept, shared_dependencies)
    rules = FunctionRules(may_run_long=listed(["slow"]))
    catalog = Catalog(store, codes, clock, region=REGION, rules=rules, find_dependencies=dependencies.named)
    registry, options = _registry(), ResourceOptions(region=REGION)
    resources = Resources(
        kept,
        catalog,
        codes,
        clock,
        dependencies=dependencies,
        registry=registry,
        instances=NoInstances(),
        options=options,
    )
    catalog.changed.connect(resources.triggers.follow)
    catalog.changed.connect(resources.follow)
    await resources.load()
    api = Api(
        catalog=catalog,
        codes=codes,
        resources=resources,
        store=store,
        kept=kept,
        writes=writes,
        engine=Engine(catalog),
    )
    async with listen(api.app(), "127.0.0.1", 0) as api.port:
        yield api
