"""Data of one invocation for its page: record, attempts with logs, deliveries, calls, group, event, result.

Events and results are shown as texts: JSON with line breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from engine.errors import UnknownInvocation
from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.http.api.decoding import is_deeper
from engine.http.api.deliveries import DeliveriesApi, DeliveryItem
from engine.http.api.logs import attempt_of, log_of
from engine.http.api.routing import Call
from engine.http.console.invocations.filters import InvocationTriggers
from engine.http.console.paths import name_of
from engine.http.console.visibility import delivery_shown
from engine.logs.lines import Line, decode, last
from engine.model import Record, State
from engine.model.identity import Identity
from engine.model.urn import LATEST
from engine.pipeline.redrive import SOURCE
from engine.protocols import Outbox, Records
from engine.protocols.calls import Calls, Group

SHOWN = 64 << 10  #: bytes shown of an event, and of a result
DEEP = 32  #: levels of nesting up to which JSON gets line breaks
LOG = 64 << 10  #: bytes shown of a log, at its end
BRIEF = 8 << 10  #: bytes shown of the log of an earlier attempt
LOGS = 5  #: attempts whose logs are shown
CAUSED = 50  #: invocations shown that another one caused
CALLS = 20  #: calls shown that another one queued
CAUSE = "Cause: its outcome is the event"
LARGEST = 1 << 20  #: bytes of an event in which its cause is looked for


class Run(Struct, frozen=True, kw_only=True):
    """Attempt, as the page shows it."""

    attempt: int
    state: str
    started_at: float
    ended_at: float | None
    code: int = 0
    message: str = ""
    decision: str = ""  #: about a retry
    progress: tuple[float, str] | None = None
    instance: str = ""  #: id; empty: unknown
    node: str = ""  #: name; empty: this machine
    lines: Sequence[Line] | None = None  #: None: the log is left out
    cut: bool = False  #: earlier lines are left out


class Related(Struct, frozen=True, kw_only=True):
    """Other invocation, and its relation to the one of the page."""

    relation: str
    request_id: str
    state: State | None  #: None: its record is no longer stored


class Linked(Struct, frozen=True, kw_only=True):
    """Calls of an invocation, and groups to which it belongs."""

    count: int  #: of all its calls
    calls: Sequence[tuple[int, Record]]  #: the first ones, each with the number of its own
    names: Mapping[int, str]  #: of their functions, by id; without deleted ones
    group: Group | None  #: of which it is a member
    place: int  #: in the group
    waits_for: Group | None  #: whose continuation it is


class _Context(Struct, frozen=True, kw_only=True):
    request_id: str = ""


class _Outcome(Struct, frozen=True, kw_only=True):
    """Event that a destination has made of the outcome of another function."""

    request_context: _Context = _Context()


class InvocationDetails:
    def __init__(
        self,
        catalog: Catalog,
        records: Records,
        identity: Identity,
        archive: Pool,
        outbox: Outbox,
        api: DeliveriesApi,
        triggers: InvocationTriggers,
        calls: Calls,
    ) -> None:
        self._catalog, self._records, self._identity = catalog, records, identity
        self._archive, self._outbox, self._item = archive, outbox, api.item
        self.triggers, self._calls = triggers, calls

    async def record(self, call: Call) -> Record:
        """Return the record of the invocation that the path names.

        Raises UnknownInvocation if it is not stored, or belongs to another project than the path.
        """
        request_id = call.part("request_id")
        record = await self._find(request_id, call.project)
        if record is None:
            raise UnknownInvocation(request_id)
        return record

    def progress(self, record: Record) -> tuple[float, str] | None:
        return None if record.state.final else self._archive.progress(record.key)

    async def deliveries(self, call: Call, record: Record) -> Sequence[DeliveryItem]:
        """Return the deliveries of its outcome that are pending or given up."""
        return [delivery_shown(call, self._item(pending)) for pending in await self._outbox.deliveries_of(record.key)]

    async def runs(self, call: Call, record: Record) -> Sequence[Run]:
        """Return the attempts of an invocation, newest first. The query may select one of them by ``attempt``."""
        chosen = attempt_of(call, record)
        runs = sorted(self._attempts(record), key=lambda run: -run.attempt)
        shown = {run.attempt for run in runs[:LOGS]} | {chosen}
        full = chosen if chosen is not None else runs[0].attempt if runs else None
        return [
            await self._with_log(record, run, LOG if run.attempt == full else BRIEF) if run.attempt in shown else run
            for run in runs
        ]

    async def related(self, call: Call, record: Record, *, readable: bool) -> Sequence[Related]:
        """Return the invocations that caused this one, and the first ``CAUSED`` that it caused.

        A cause may be known from the event only, which is read if it is ``readable``. The one before in a chain is
        among them.
        """
        links = await self._calls.links(record.key)
        causes = {links.parent: "Queued by"} if links.parent else {}
        if (group := links.waits_for) is not None and group.chain:
            members, _ = await self._calls.members(group.key, -1, 1, 0)
            causes |= {member.key: "Gets the result of" for _, member in members}
        causes |= {record.cause: "Repeats" if record.source == SOURCE else CAUSE} if record.cause else {}
        if readable and (key := self._identity.key_of(_cause(record.payload))) is not None:
            causes.setdefault(key, CAUSE)
        relations = []
        for key, relation in causes.items():
            request_id = self._identity.request_id(key)
            earlier = await self._find(request_id, call.project)
            state = None if earlier is None else earlier.state
            relations.append(Related(relation=relation, request_id=request_id, state=state))
        for later in await self._records.caused_by(record.key, CAUSED):
            if self._catalog.project_of(later.function_id) == call.project:
                relation = "Repeated by" if later.source == SOURCE else "Its outcome is the event of"
                relations.append(Related(relation=relation, request_id=later.request_id, state=later.state))
        return relations

    async def linked(self, record: Record) -> Linked:
        """Return the first calls of an invocation, and its groups without steps of chains."""
        links = await self._calls.links(record.key)
        calls = await self._calls.children(record.key, 0, CALLS) if links.children else ()
        functions = {called.function_id for _, called in calls}
        found = (self._catalog.resolve(function_id, LATEST) for function_id in functions)
        return Linked(
            count=links.children,
            calls=calls,
            names={function.function_id: name_of(function) for function in found if function is not None},
            group=await self._calls.group(links.group) if links.group else None,
            place=links.place,
            waits_for=None if links.waits_for is None or links.waits_for.chain else links.waits_for,
        )

    def request_id(self, key: int) -> str:
        return self._identity.request_id(key)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _find(self, request_id: str, project: str) -> Record | None:
        key = self._identity.key_of(request_id)
        record = await self._records.get(key) if key is not None else None
        return None if record is None or self._catalog.project_of(record.function_id) != project else record

    def _attempts(self, record: Record) -> list[Run]:
        runs = [
            Run(
                attempt=attempt.attempt,
                state="FAIL" if attempt.code else "SUCCESS",
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                code=attempt.code,
                message=attempt.message,
                decision="" if attempt.decision is None else attempt.decision.text,
                progress=None if attempt.progress is None else (attempt.progress, attempt.note),
                instance=attempt.instance,
                node=attempt.node,
            )
            for attempt in record.attempts
        ]
        ended = record.started_at is not None and record.ended_at is not None
        if record.started_at is not None and (record.state is State.RUNNING or (ended and not runs)):
            runs.append(
                Run(
                    attempt=record.attempt,
                    state=record.state,
                    started_at=record.started_at,
                    ended_at=record.ended_at if record.state.final else None,
                    code=record.code if record.state.final else 0,
                    message=record.message if record.state.final else "",
                    progress=self.progress(record),
                )
            )
        return runs

    async def _with_log(self, record: Record, run: Run, size: int) -> Run:
        log = await log_of(self._archive, record, run.attempt)
        lines = list(decode(last(log, size)))
        return msgspec.structs.replace(run, lines=lines, cut=len(log) > size)


def _cause(event: bytes) -> str:
    """Return the request id in an event that a destination has made; empty for other events."""
    if len(event) > LARGEST:
        return ""
    try:
        return msgspec.json.decode(event, type=_Outcome).request_context.request_id
    except (msgspec.DecodeError, RecursionError):
        return ""


class Body(Struct, frozen=True, kw_only=True):
    """Event or result, as the page shows it."""

    text: str
    size: int  #: bytes as stored
    left: int  #: bytes that are not shown


class Header(Struct, frozen=True):
    name: str
    value: str


class _Request(Struct, frozen=True, kw_only=True):
    """Event that a gateway has made of a request."""

    headers: dict[str, str]
    method: str = msgspec.field(name="httpMethod")


def body_of(content: bytes) -> Body:
    """Return an event or a result. JSON gets line breaks if all of it is shown."""
    left = max(0, len(content) - SHOWN)
    return Body(
        text=content[:SHOWN].decode("utf-8", "replace") if left else pretty(content), size=len(content), left=left
    )


def pretty(content: bytes) -> str:
    """Return JSON with line breaks, and any other text as it is, as well as JSON that is mostly indents then."""
    text = b""
    if not is_deeper(content, DEEP):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = msgspec.json.format(content, indent=2)
    return (text if 0 < len(text) <= 8 * len(content) + 4096 else content).decode("utf-8", "replace")


def headers_of(event: bytes) -> Sequence[Header]:
    """Return the HTTP headers in the event of a gateway; nothing for other events."""
    try:
        request = msgspec.json.decode(event[:SHOWN], type=_Request)
    except (msgspec.DecodeError, RecursionError):
        return ()
    return [Header(name, value) for name, value in sorted(request.headers.items())]
