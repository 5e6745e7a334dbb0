"""The nouns: what can be invoked, what was asked for, and how it ended.

An invocation's life, as the API shows it:

    WAIT ──▶ RUNNING ──▶ SUCCESS
      ▲         │  └───▶ FAIL       no attempts left, or cancelled (4208)
      └─────────┘                   retry: due later
    WAIT ──▶ DISCARD                too old, or its function is gone
    WAIT ──▶ FAIL                   cancelled (4208)

Nouns never point back at the machinery: an Invocation has no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any

from msgspec import Struct, field

from engine.model.identity import accepted_at
from engine.model.urn import LATEST, FunctionUrn


class State(StrEnum):
    """The five states of the API (spec functiongraph_api, 2.4)."""

    WAIT = "WAIT"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"
    DISCARD = "DISCARD"

    @property
    def final(self) -> bool:
        return self not in (State.WAIT, State.RUNNING)


#: Which state may follow which.
MOVES: dict[State, frozenset[State]] = {
    State.WAIT: frozenset({State.RUNNING, State.FAIL, State.DISCARD}),
    State.RUNNING: frozenset({State.SUCCESS, State.FAIL, State.WAIT}),
    State.SUCCESS: frozenset(),
    State.FAIL: frozenset(),
    State.DISCARD: frozenset(),
}


class Mode(StrEnum):
    ASYNC = "async"
    SYNC = "sync"


class Code(IntEnum):
    """Numeric error codes of an outcome (spec functiongraph_api 8.1, triggers_runtime 4.1)."""

    OK = 0
    ENTRY_NOT_FOUND = 4001
    USER_EXCEPTION = 4002
    RESPONSE_TOO_LARGE = 4004
    BAD_RESULT = 4007
    INITIALIZER_ERROR = 4009
    TIMEOUT = 4010
    REQUEST_TOO_LARGE = 4140
    INIT_FAILED = 4201
    OUT_OF_MEMORY = 4205
    DISK_FULL = 4207
    CANCELLED = 4208
    INIT_TIMEOUT = 4211
    FUNCTION_MISSING = 4024
    EXPIRED = 150430
    ENGINE = 150500  #: ours: the engine died or could not run it
    OVERLOAD = 150510  #: ours: no capacity for an instance


#: Faults of the engine, not of the function: they use up no retry.
ENGINE_FAULTS = frozenset({Code.ENGINE, Code.OVERLOAD})


class CodePackage(Struct, frozen=True, kw_only=True):
    """Where a version's code lies: unpacked once under ``code/<sha256>/``."""

    sha256: str  #: of the package as uploaded; names the folder
    digest: str  #: SHA-512 hex of the package, as the API shows it
    size: int  #: bytes of the package
    kind: str = "zip"  #: ``inline``, ``zip``, ``obs`` or ``jar``
    filename: str = ""
    url: str = ""


class Dependency(Struct, frozen=True, kw_only=True):
    """One version of a package that functions share."""

    id: str  #: of this version; what functions name
    dep_id: str  #: of all versions together
    project: str
    name: str
    version: int
    runtime: str
    code: CodePackage
    etag: str  #: MD5 of the package
    description: str = ""
    created_at: float = 0.0


class Function(Struct, frozen=True, kw_only=True):
    """One version of something that can be invoked."""

    function_id: int  #: never reused; stands for (project, package, name)
    project: str
    package: str
    name: str
    version: str = LATEST
    revision: int = 1  #: grows with every change; an instance serves one revision only
    created_key: int = 0  #: of a published version: invocations with smaller keys were for an earlier one of its name
    runtime: str
    handler: str
    timeout: int  #: seconds
    memory_size: int  #: MB
    code: CodePackage
    initializer_handler: str = ""
    initializer_timeout: int = 300
    pre_stop_handler: str = ""
    pre_stop_timeout: int | None = None  #: seconds; None was not set, and shows as that
    user_data: dict[str, str] = field(default_factory=dict)
    encrypted_user_data: dict[str, str] = field(default_factory=dict)
    max_instances: int = 400  #: -1 no limit, 0 disabled
    concurrent_num: int = 1  #: requests one instance serves at a time
    dynamic_memory: bool = False  #: a caller may choose the memory of its instance
    description: str = ""
    version_description: str = ""
    collected: bool = False  #: marked by its owner as one to keep at hand
    created_at: float = 0.0
    modified_at: float = 0.0
    dependencies: tuple[Dependency, ...] = ()  #: on the path behind the code, in this order
    details: dict[str, Any] = field(default_factory=dict)  #: API fields kept as given, without effect here

    @property
    def packages(self) -> tuple[str, ...]:
        """What it runs from, by the names of the folders."""
        return (self.code.sha256, *(dependency.code.sha256 for dependency in self.dependencies))

    @property
    def pre_stop_limit(self) -> int:
        """Seconds that its last words may take."""
        return 90 if self.pre_stop_timeout is None else self.pre_stop_timeout

    def urn(self, region: str) -> FunctionUrn:
        return FunctionUrn(
            region=region, project=self.project, package=self.package, name=self.name, qualifier=self.version
        )


class Rule(Struct, frozen=True, kw_only=True):
    """What a header or a cookie of a request must be."""

    rule_type: str = "header"  #: or ``cookie``
    param: str = ""  #: its name
    op: str = "="  #: or ``in``
    value: str = ""  #: for ``in``, separated by commas


class Strategy(Struct, frozen=True, kw_only=True):
    """When a request goes to an extra version."""

    combine_type: str = "and"  #: every rule, or with ``or`` any of them
    rules: tuple[Rule, ...] = ()


class Alias(Struct, frozen=True, kw_only=True):
    """A name for a version of a function, which part of the requests may pass by."""

    name: str
    version: str  #: the main one
    description: str = ""
    weights: dict[str, int] = field(default_factory=dict)  #: percent of the requests, by extra version
    strategies: dict[str, Strategy] = field(default_factory=dict)  #: by extra version; these come first
    modified_at: float = 0.0


class DestinationSpec(Struct, frozen=True, kw_only=True):
    """One destination as the asynchronous settings name it; ``param`` is JSON text."""

    destination: str
    param: str = "{}"


class AsyncSettings(Struct, frozen=True, kw_only=True):
    """What happens to a function's asynchronous invocations (spec functiongraph_api, section 3)."""

    max_age: int = 3600  #: seconds from due time; older ones are discarded
    max_retries: int = 1  #: further attempts after a function error
    on_success: DestinationSpec | None = None
    on_failure: DestinationSpec | None = None
    status_log: bool = False
    created_at: float = 0.0
    modified_at: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


class Request(Struct, frozen=True, kw_only=True):
    """What a trigger or a client asks for."""

    function: FunctionUrn
    payload: bytes  #: one JSON value
    mode: Mode = Mode.ASYNC
    source: str = "API"  #: trigger type, or API
    priority: int = 0  #: 0 to 9, capped by the function's settings
    delay: float = 0.0  #: seconds
    hops: int = 0  #: how many functions led here, by destinations or by lines in their logs
    memory: int = 0  #: MB chosen by the caller, 0 for the function's own
    idempotency_key: str = ""
    headers: Mapping[bytes, bytes] | None = None  #: of HTTP, in lower case: the rules of an alias may look at them
    accept_when_disabled: bool = False  #: taken also for a function that is switched off, to run once it is on again


class Invocation(Struct, frozen=True, kw_only=True):
    """One accepted request and the promise to run it."""

    key: int  #: the journal's; ``Identity`` turns it into the request id
    request_id: str
    function_id: int
    version: str = LATEST
    alias: str = ""
    mode: Mode = Mode.ASYNC
    source: str = "API"
    payload: bytes = b""
    priority: int = 0
    rank: float = 0.0  #: smaller runs first: due_at - priority * step
    first_due_at: float = 0.0  #: its age counts from here
    due_at: float = 0.0  #: run no sooner; a retry is simply due later
    delayed: bool = False  #: stored as not ready; only ``Window.promote`` makes it so
    attempt: int = 1  #: the number of the next or present attempt
    failures: int = 0  #: attempts that the function itself failed
    crash_count: int = 0  #: times the engine died while it was running
    hops: int = 0
    memory: int = 0

    @property
    def accepted_at(self) -> float:
        return accepted_at(self.key)

    @property
    def accepted_on_clock(self) -> float:
        """Time of acceptance that the clock showed; ``accepted_at`` is later if the clock was set back before."""
        return min(self.accepted_at, self.first_due_at)

    @property
    def rank_key(self) -> tuple[float, int]:
        """Its place in the order; unique."""
        return (self.rank, self.key)


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt ended. User errors are outcomes, never exceptions of ours."""

    code: int = Code.OK
    message: str = ""  #: error text, empty on success
    result: bytes = b""  #: what the handler returned, or the error as JSON text
    log: bytes = b""  #: tail of stdout, stderr and logger lines
    started_at: float = 0.0
    ended_at: float = 0.0
    memory_used: int = 0  #: bytes, 0 if unknown
    initialised: float = 0.0  #: seconds spent in a cold start, 0 for a warm instance

    @property
    def ok(self) -> bool:
        return self.code == Code.OK

    @property
    def cancelled(self) -> bool:
        return self.code == Code.CANCELLED

    @property
    def engine_fault(self) -> bool:
        return self.code in ENGINE_FAULTS


class Attempt(Struct, frozen=True, kw_only=True):
    """A finished attempt of an invocation's history, which keeps the newest."""

    attempt: int
    started_at: float
    ended_at: float
    code: int
    message: str


class Record(Struct, frozen=True, kw_only=True):
    """All the journal knows of an invocation."""

    key: int
    request_id: str
    function_id: int
    version: str
    alias: str
    source: str
    state: State
    priority: int
    due_at: float
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 0
    code: int = 0
    message: str = ""
    hops: int = 0
    payload: bytes = b""
    result: bytes = b""
    log: bytes = b""
    attempts: tuple[Attempt, ...] = ()

    @property
    def accepted_at(self) -> float:
        return accepted_at(self.key)


class PendingDelivery(Struct, frozen=True, kw_only=True):
    """An outcome that a destination has not confirmed yet."""

    delivery_id: int  #: stable: destinations may use it to drop what they saw before
    key: int  #: of the invocation
    function_id: int
    condition: str  #: ``success`` or ``failure``
    destination: DestinationSpec
    due_at: float  #: infinite once it was given up
    tries: int = 0
    error: str = ""  #: of the last try
    since: float = 0.0  #: when it was last sent again by hand: its age counts from there
