"""Parts of the engine that the handlers of the API call, such as intake, catalog and records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from engine.code.store import CodeStore
from engine.errors import UnknownInvocation
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.versions import Versions
from engine.logs.feed import LogBoard, LogFeed
from engine.metrics.usage import Usage
from engine.model import Function, Outcome, Record, Request
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.pipeline.redrive import Redrive
from engine.protocols import Operation, Records
from engine.protocols.audit import AuditTrail
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.facade import Resources
from engine.triggers.source import SourceState


class RequestIntake(Protocol):
    async def accept(self, request: Request) -> str:
        """Accept an asynchronous request. Return the request id of its invocation after the invocation is on disk."""
        ...

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        """Run a request synchronously. Return its request id, the version that ran, and the outcome.

        Raises CallTimedOut if the request does not end in time.
        """
        ...


class RunControl(Protocol):
    async def cancel(self, key: int) -> bool:
        """Cancel the waiting or running invocation with this key. Return False if it has already ended."""
        ...

    async def ended(self, key: int, timeout: float) -> None:  # noqa: ASYNC109  (a timeout is no error)
        """Wait until the invocation with this key has ended, at most ``timeout`` seconds."""
        ...


class LogArchive(Protocol):
    """Stored output of functions. The bytes have the format that ``engine.logs.lines`` reads."""

    async def log(self, key: int, request_id: str) -> bytes | None:
        """Return the log of an invocation, up to now if it is running; None if its stored record has the whole log."""
        ...

    async def instance_log(self, function_id: int) -> bytes:
        """Return recent output that the function's instances wrote outside any request, such as during their start."""
        ...


class HealthChecks(Struct, frozen=True, kw_only=True):
    """Functions that report the state of the engine. Called at each request to /healthz, /readyz or /metrics."""

    alive: Callable[[], Mapping[str, Any]] = dict  #: problems by part; empty: healthy
    ready: Callable[[], Mapping[str, Any]] = dict  #: reasons for rejecting new work, by part; empty: ready
    about: Callable[[], Mapping[str, Any]] = dict  #: further fields of the reply of /readyz, whether ready or not
    metrics: Callable[[], bytes] = bytes  #: text format of Prometheus


class ApiDependencies(Struct, frozen=True, kw_only=True):
    intake: RequestIntake
    dispatcher: RunControl
    records: Records
    identity: Identity
    catalog: Catalog
    versions: Versions
    aliases: Aliases
    codes: CodeStore
    clock: Clock
    region: str
    resources: Resources
    usage: Usage
    redrive: Redrive
    logs: LogFeed = field(default_factory=LogBoard)
    log_archive: LogArchive
    audit: AuditTrail = field(default_factory=AuditTrail)
    version: str = ""  #: version of the engine
    mounted: Callable[[], Sequence[Operation]] = lambda: ()  #: operations of plugins at paths of this API
    instances: Callable[[Collection[int]], int] = lambda functions: 0  #: number of live instances of these functions
    #: state of a trigger's source, by trigger id
    source_state: Callable[[str], SourceState | None] = lambda trigger_id: None
    #: further fields of a trigger's ``event_data``, from the running service of its plugin
    runtime_fields: Callable[[BoundTrigger], Mapping[str, Any]] = lambda trigger: {}
    #: waits until the source of a trigger, given by id, has applied the trigger's last change
    source_settled: Callable[[str], Awaitable[None]] | None = None
    async_body_limit: int = 256 << 10  #: bytes
    sync_body_limit: int = 6 << 20  #: bytes
    update_resets: bool = False  #: True: configuration updates reset absent fields
    health: HealthChecks = HealthChecks()

    async def record(self, function: Function, request_id: str) -> Record:
        """Return the record of the invocation ``request_id``.

        Raises UnknownInvocation if no such record is stored, or if the invocation is of another function than
        ``function``.
        """
        key = self.identity.key_of(request_id)
        record = await self.records.get(key) if key is not None else None
        if record is None or record.function_id != function.function_id:
            raise UnknownInvocation(request_id)
        return record
