"""Dependencies of the API: the parts of the engine that it calls."""

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
        """Accept an asynchronous invocation. Return its request id after it is on disk."""
        ...

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        """Run a synchronous call. Return its request id, the invoked version, and the outcome. Raises CallTimedOut."""
        ...


class RunControl(Protocol):
    async def cancel(self, key: int) -> bool:
        """Cancel a waiting or running invocation. Return False if the invocation has already ended."""
        ...

    async def ended(self, key: int, timeout: float) -> None:  # noqa: ASYNC109  (a timeout is no error)
        """Wait until the invocation has ended, at most ``timeout`` seconds."""
        ...


class LogArchive(Protocol):
    """Stored output of functions, in the format of ``engine.logs.lines``."""

    async def log(self, key: int, request_id: str) -> bytes | None:
        """Return the log of an invocation so far; None if the whole log is in its record."""
        ...

    async def instance_log(self, function_id: int) -> bytes:
        """Return the recent output of a function's instances that belongs to no request."""
        ...


class HealthChecks(Struct, frozen=True, kw_only=True):
    """Functions that report the health of the engine. Each is called for every request."""

    alive: Callable[[], Mapping[str, Any]] = dict  #: problems by part; empty: healthy
    ready: Callable[[], Mapping[str, Any]] = dict  #: reasons for rejecting new work, by part; empty: ready
    about: Callable[[], Mapping[str, Any]] = dict  #: further facts, whether ready or not
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
    runtime_fields: Callable[[BoundTrigger], Mapping[str, Any]] = lambda trigger: {}  #: fields of a running service
    #: waits until the source of a trigger, given by id, has applied the trigger's last change
    source_settled: Callable[[str], Awaitable[None]] | None = None
    async_body_limit: int = 256 << 10  #: bytes
    sync_body_limit: int = 6 << 20  #: bytes
    update_resets: bool = False  #: True: configuration updates reset absent fields
    health: HealthChecks = HealthChecks()

    async def record(self, function: Function, request_id: str) -> Record:
        """Return the record of an invocation. Raises UnknownInvocation, also for an invocation of another function."""
        key = self.identity.key_of(request_id)
        record = await self.records.get(key) if key is not None else None
        if record is None or record.function_id != function.function_id:
            raise UnknownInvocation(request_id)
        return record
