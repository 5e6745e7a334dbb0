"""Data types that components exchange and store: functions, requests, invocations and outcomes.

States of an invocation, as the API shows them:

    WAIT ──▶ RUNNING ──▶ SUCCESS
      ▲         │  └───▶ FAIL       no further attempt, or cancelled (code 4208)
      └─────────┘                   retry at a later due time
    WAIT ──▶ DISCARD                over its maximum age, or its function or version was deleted
    WAIT ──▶ FAIL                   cancelled (code 4208)
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum, StrEnum
from typing import Any

from msgspec import Struct, field

from engine.model.identity import accepted_at
from engine.model.retry_rules import Decision, RetryRule
from engine.model.urn import LATEST, FunctionUrn


class State(StrEnum):
    """State of an asynchronous invocation (FunctionGraph API: ListAsyncInvocations)."""

    WAIT = "WAIT"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"
    DISCARD = "DISCARD"

    @property
    def final(self) -> bool:
        return self not in (State.WAIT, State.RUNNING)


#: Allowed next states, by state.
MOVES: dict[State, frozenset[State]] = {
    State.WAIT: frozenset({State.RUNNING, State.FAIL, State.DISCARD}),
    State.RUNNING: frozenset({State.SUCCESS, State.FAIL, State.WAIT}),
    State.SUCCESS: frozenset(),
    State.FAIL: frozenset(),
    State.DISCARD: frozenset(),
}


class ContentKey(str):
    """Idempotency key of a request whose repetitions have other payloads: its ``content`` is compared in their place.

    If earlier engines compared payloads, ``repeats`` tells whether a payload that one of them stored is of the request.
    """

    content: bytes
    repeats: Callable[[bytes], bool] | None

    def __new__(cls, key: str, content: bytes, repeats: Callable[[bytes], bool] | None = None) -> ContentKey:
        made = super().__new__(cls, key)
        made.content, made.repeats = content, repeats
        return made


class Mode(StrEnum):
    ASYNC = "async"
    SYNC = "sync"


class Code(IntEnum):
    """Numeric codes of outcomes. FunctionGraph documents all of them, except those marked "functiond only"."""

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
    CALL_BEFORE = 150520  #: functiond only: a call for whose end it waited has failed
    ENGINE = 150500  #: functiond only: the engine crashed, or could not run the invocation
    OVERLOAD = 150510  #: functiond only: no capacity for an instance


#: Errors of the engine, not of the function: they use up no retry.
ENGINE_FAULTS = frozenset({Code.ENGINE, Code.OVERLOAD})


class CodePackage(Struct, frozen=True, kw_only=True):
    """Code package of a function's or dependency's version. Equal packages share the folder ``code/<sha256>/``."""

    sha256: str  #: SHA-256 hex of the package, and of the file name of inline source; name of the folder
    digest: str  #: SHA-512 hex of the package, as the API shows it
    size: int  #: bytes of the package
    kind: str = "zip"  #: ``inline``, ``zip``, ``obs`` or ``jar``
    filename: str = ""
    url: str = ""


class Dependency(Struct, frozen=True, kw_only=True):
    """Version of a dependency: a code package that several functions can use beside their own code."""

    id: str  #: id of this version; functions refer to it
    dep_id: str  #: id that all versions share
    project: str
    name: str
    version: int
    runtime: str
    code: CodePackage
    etag: str  #: MD5 of the package
    description: str = ""
    created_at: float = 0.0


class Function(Struct, frozen=True, kw_only=True):
    """Version of a function: ``latest``, which can be changed, or a published version."""

    function_id: int  #: never reused; identifies (project, package, name)
    project: str
    package: str
    name: str
    version: str = LATEST
    revision: int = 1  #: increases with every change; an instance serves one revision only
    #: Of a published version: smaller keys belong to an earlier version of this name. Stored as ``born``.
    created_key: int = field(default=0, name="born")
    runtime: str
    handler: str
    timeout: int  #: seconds
    memory_size: int  #: MB of 2**20 bytes
    code: CodePackage
    initializer_handler: str = ""
    initializer_timeout: int = 300
    pre_stop_handler: str = ""
    pre_stop_timeout: int | None = None  #: seconds; None: not set, and shown as not set
    user_data: dict[str, str] = field(default_factory=dict)
    encrypted_user_data: dict[str, str] = field(default_factory=dict)
    max_instances: int = 400  #: -1: no limit, 0: disabled
    concurrent_num: int = 1  #: concurrent requests of an instance
    dynamic_memory: bool = False  #: callers may choose the memory of the instance
    description: str = ""
    version_description: str = ""
    collected: bool = False  #: marked as a favourite by its owner
    created_at: float = 0.0
    modified_at: float = 0.0
    dependencies: tuple[Dependency, ...] = ()  #: on the module search path after the code, in this order
    details: dict[str, Any] = field(default_factory=dict)  #: API fields stored as given, without effect

    @property
    def packages(self) -> tuple[str, ...]:
        """Folder names, below ``code/``, of the function's code and then of its dependencies."""
        return (self.code.sha256, *(dependency.code.sha256 for dependency in self.dependencies))

    @property
    def pre_stop_limit(self) -> int:
        """Maximum duration, in seconds, of the pre-stop handler, which runs before an instance stops."""
        return 90 if self.pre_stop_timeout is None else self.pre_stop_timeout

    def urn(self, region: str) -> FunctionUrn:
        return FunctionUrn(
            region=region, project=self.project, package=self.package, name=self.name, qualifier=self.version
        )


class Rule(Struct, frozen=True, kw_only=True):
    """Condition on a header or cookie of a request, by which an alias chooses a version."""

    rule_type: str = "header"  #: or ``cookie``
    param: str = ""  #: name of the header or cookie
    op: str = "="  #: or ``in``
    value: str = ""  #: for ``in``: comma-separated values


class Strategy(Struct, frozen=True, kw_only=True):
    """Rules of an alias that select the requests for one of its additional versions."""

    combine_type: str = "and"  #: ``and``: all rules must match; ``or``: any
    rules: tuple[Rule, ...] = ()


class Alias(Struct, frozen=True, kw_only=True):
    """Alias: name for a main version of a function. Part of the requests can be routed to additional versions."""

    name: str
    version: str  #: main version
    description: str = ""
    weights: dict[str, int] = field(default_factory=dict)  #: percent of the requests, by additional version
    strategies: dict[str, Strategy] = field(default_factory=dict)  #: by additional version; checked before the weights
    modified_at: float = 0.0


class DestinationSpec(Struct, frozen=True, kw_only=True):
    """Destination of outcomes as stored in asynchronous settings: its kind, and parameters as JSON text."""

    destination: str
    param: str = "{}"


class AsyncSettings(Struct, frozen=True, kw_only=True):
    """Asynchronous settings of a function (FunctionGraph API: UpdateFunctionAsyncInvokeConfig)."""

    max_age: int = 3600  #: seconds after the first due time; older invocations are discarded
    max_retries: int = 1  #: further attempts after a function error
    on_success: DestinationSpec | None = None
    on_failure: DestinationSpec | None = None
    status_log: bool = False
    retry_rules: tuple[RetryRule, ...] = ()  #: the first that matches an error replaces ``max_retries`` for it
    created_at: float = 0.0
    modified_at: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


class Request(Struct, frozen=True, kw_only=True):
    """Invocation that a trigger or a client asks for, before the engine accepts it."""

    function: FunctionUrn
    payload: bytes  #: one JSON value
    mode: Mode = Mode.ASYNC
    source: str = "API"  #: trigger type, or ``API``
    priority: int = 0  #: 0 to 9, capped by the settings of the function
    delay: float = 0.0  #: seconds until the invocation is due
    hops: int = 0  #: number of functions that caused this request, through destinations or log lines
    memory: int = 0  #: MB chosen by the caller; 0: memory of the function
    idempotency_key: str = ""
    headers: Mapping[bytes, bytes] | None = None  #: HTTP headers, names in lower case; rules of an alias may use them
    accept_when_disabled: bool = False  #: accept for a disabled function; runs after it is enabled
    trace: str = ""  #: value of the header ``traceparent``; empty: that of ``headers``
    ordering_key: str = ""  #: invocations of the function with this key run one at a time, in order of acceptance
    trigger_id: str = ""  #: trigger that makes the request; empty: none
    cause: int = 0  #: key of the invocation whose outcome is the event, or which the request repeats; 0: none
    #: returns further members for ``payload``, a JSON object, if the function is an HTTP function
    http_members: Callable[[], bytes] | None = None


Kind = tuple[str, int]  #: version and, if a caller has chosen it, memory in MiB, else 0: such runs share instances


class Invocation(Struct, frozen=True, kw_only=True):
    """Accepted request that the engine has promised to run."""

    key: int  #: key in the journal; ``Identity`` converts it to the request id
    request_id: str
    function_id: int
    version: str = LATEST
    alias: str = ""
    mode: Mode = Mode.ASYNC
    source: str = "API"
    payload: bytes = b""
    priority: int = 0
    rank: float = 0.0  #: smaller runs first: due_at - priority * priority_step
    first_due_at: float = 0.0  #: time from which the age of the invocation counts
    due_at: float = 0.0  #: earliest start; later for a retry
    delayed: bool = False  #: stored as not ready; only ``Window.promote`` makes it ready
    attempt: int = 1  #: number of the next or current attempt
    failures: int = 0  #: attempts that failed by an error of the function
    crash_count: int = 0  #: engine crashes after its handler had begun
    start_crashes: int = 0  #: engine crashes after its dispatch and before its handler began
    hops: int = 0
    memory: int = 0
    trace: str = ""  #: value of the header ``traceparent`` of its request; empty: none
    ordering_key: str = ""  #: invocations of the function with this key run one at a time; empty: no order
    held: bool = False  #: stored behind another invocation with its ordering key; the end of that one releases it
    trigger_id: str = ""  #: of its request; left out when the invocation is read from disk in order to run
    cause: int = 0  #: of its request
    parent: str = ""  #: request id of the run that queued it, else of ``cause``; empty: none
    damage: str = ""  #: why it must not run: its stored payload is damaged; ``payload`` then has zeros
    trusted_at: float = math.inf  #: time of acceptance by ``Clock.expiry`` while the clock is not trusted; not stored

    @property
    def kind(self) -> Kind:
        return self.version, self.memory

    @property
    def accepted_at(self) -> float:
        return accepted_at(self.key)

    @property
    def expires_others_at(self) -> float:
        """Time by which idempotency keys of earlier invocations expire."""
        return min(self.accepted_on_clock, self.trusted_at)

    @property
    def accepted_on_clock(self) -> float:
        """Time of acceptance by the clock. ``accepted_at`` is later if the clock was set back: keys still increase."""
        return min(self.accepted_at, self.first_due_at)

    @property
    def crashes(self) -> int:
        """Number of engine crashes that met the invocation after its dispatch."""
        return self.crash_count + self.start_crashes

    @property
    def rank_key(self) -> tuple[float, int]:
        """Sort key of a function's ready invocations: the smallest runs first. No two invocations have equal keys."""
        return (self.rank, self.key)


#: Function that an executor calls, and waits for, right before it sends an invocation to an instance.
Begin = Callable[[], Awaitable[None] | None]


class Outcome(Struct, frozen=True, kw_only=True):
    """Result of an attempt. Errors of user code are outcomes, never exceptions of the engine."""

    code: int = Code.OK
    message: str = ""  #: error text; of a stored success, that its result is not kept, else empty
    result: bytes = b""  #: return value of the handler, or the error as JSON text
    log: bytes = b""  #: tail of stdout, stderr and logger lines
    started_at: float = 0.0
    ended_at: float = 0.0
    memory_used: int = 0  #: bytes; 0: unknown
    initialised: float = 0.0  #: seconds of the cold start; 0: warm instance
    progress: float | None = None  #: fraction that the handler has reported last
    note: str = ""  #: reported with it
    instance: str = ""  #: id of the instance; empty: none, or a success at the first attempt
    node: str = ""  #: name of the node of the instance; empty: this machine, or unknown
    losses: int = 0  #: nodes lost with the invocation up to now; 0: the attempt ended otherwise

    @property
    def ok(self) -> bool:
        return not self.code

    @property
    def cancelled(self) -> bool:
        return self.code == Code.CANCELLED

    @property
    def engine_fault(self) -> bool:
        return self.code in ENGINE_FAULTS


class Attempt(Struct, frozen=True, kw_only=True):
    """Finished attempt, as stored in an invocation's history, which keeps the newest attempts only."""

    attempt: int
    started_at: float
    ended_at: float
    code: int
    message: str
    log: bytes = b""  #: tail of its log, if another attempt followed; ``Record.log`` is that of the last attempt
    decision: Decision | None = None  #: when to retry, or why not; None without asynchronous settings
    progress: float | None = None  #: fraction that its handler reported last
    note: str = ""  #: reported with it
    instance: str = ""  #: id of the instance that ran it; empty: unknown, or none
    node: str = ""  #: name of its node; empty: the engine's machine


class Record(Struct, frozen=True, kw_only=True):
    """Stored state of an invocation, with its payload, its result, and the history of its attempts."""

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
    ordering_key: str = ""
    held: bool = False  #: waits for the end of an earlier invocation with its ordering key
    trigger_id: str = ""  #: trigger that made its request; empty: none
    cause: int = 0  #: key of the invocation whose outcome is its event, or which it repeats; lists leave it out
    payload: bytes = b""
    result: bytes = b""
    log: bytes = b""
    attempts: tuple[Attempt, ...] = ()
    trace: str = ""  #: value of the header ``traceparent`` of its request; lists leave it out
    damaged: frozenset[str] = frozenset()  #: of ``payload``, ``result`` and ``attempts``: damaged on disk, so left out

    @property
    def accepted_at(self) -> float:
        return accepted_at(self.key)


class PendingDelivery(Struct, frozen=True, kw_only=True):
    """Outcome that its destination has not confirmed yet."""

    delivery_id: int  #: stable; destinations may use it to drop duplicates
    key: int  #: key of the invocation
    function_id: int
    condition: str  #: ``success`` or ``failure``
    destination: DestinationSpec
    due_at: float  #: time of the next try; infinite after giving up
    tries: int = 0
    error: str = ""  #: error of the last try
    since: float = 0.0  #: time of the last redrive by a user, from which the age of the delivery counts
