"""What the API needs of the engine, as it calls it."""

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


class Intake(Protocol):
    async def accept(self, request: Request) -> str:
        """The request id, once the invocation is durable."""
        ...

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        """The request id, the version that was called, and its end. Raises CallTimedOut."""
        ...


class Dispatcher(Protocol):
    async def cancel(self, key: int) -> bool:
        """End an invocation that waits or runs; False if it is over."""
        ...

    async def ended(self, key: int, timeout: float) -> None:  # noqa: ASYNC109  (reaching it is no error)
        """Return when the invocation has ended, or after ``timeout`` seconds."""
        ...


class LogArchive(Protocol):
    """What functions have written, as ``engine.logs.lines`` keeps it."""

    async def log(self, key: int, request_id: str) -> bytes | None:
        """Of an invocation, so far; None: no more than its record tells."""
        ...

    async def instance_log(self, function_id: int) -> bytes:
        """Of a function's instances, lately, that belongs to no request."""
        ...


class HealthChecks(Struct, frozen=True, kw_only=True):
    """How the engine is; each is asked anew for every request."""

    alive: Callable[[], Mapping[str, Any]] = dict  #: what is wrong, by part; empty when all is well
    ready: Callable[[], Mapping[str, Any]] = dict  #: why new work is refused; empty when it is taken
    about: Callable[[], Mapping[str, Any]] = dict  #: what else is worth knowing of an engine that is ready or not
    metrics: Callable[[], bytes] = bytes  #: in the text format of Prometheus


class ApiDependencies(Struct, frozen=True, kw_only=True):
    intake: Intake
    dispatcher: Dispatcher
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
    version: str = ""  #: of the engine
    mounted: Callable[[], Sequence[Operation]] = lambda: ()  #: what plugins serve at paths of this API
    instances: Callable[[Collection[int]], int] = lambda functions: 0  #: how many of these are alive
    source_state: Callable[[str], SourceState | None] = lambda trigger_id: None  #: of a trigger, by its id
    standing: Callable[[BoundTrigger], Mapping[str, Any]] = lambda trigger: {}  #: what its running service tells of it
    source_settled: Callable[[str], Awaitable[None]] | None = None  #: returns once it follows the last change
    async_body_limit: int = 256 << 10
    sync_body_limit: int = 6 << 20
    update_resets: bool = False  #: whether an update of a function's configuration resets what it leaves out
    health: HealthChecks = HealthChecks()

    async def record(self, function: Function, request_id: str) -> Record:
        """An invocation of this function. Raises UnknownInvocation."""
        key = self.identity.key_of(request_id)
        record = await self.records.get(key) if key is not None else None
        if record is None or record.function_id != function.function_id:
            raise UnknownInvocation(request_id)
        return record
