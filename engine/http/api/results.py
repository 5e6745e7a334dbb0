"""Results of many invocations, and the trees of invocations that queued each other."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.asgi.streaming import until_disconnected
from engine.errors import UnknownInvocation
from engine.functions.catalog import Catalog
from engine.http.api.routing import BASE, INVOKE, INVOKE_OR_READ, ApiFamily, BodyCall, Call, operation, read
from engine.model import Record
from engine.model.identity import Identity
from engine.pipeline.groups import STEP, Groups
from engine.pipeline.settling import Ends
from engine.protocols import Records
from engine.protocols.calls import Calls

INVOCATION = f"{BASE}/async-invocations/{{request_id}}"
SIZE = 6 << 20  #: bytes of results in a reply
MOST = 1_000  #: results in a reply
GATHER = 0.02  #: seconds from the first end to the reply, so that it has further ends


class ResultReply(Struct, frozen=True, kw_only=True):
    request_id: str
    function: str  #: name; empty: it was deleted
    status: str
    result: str | UnsetType = UNSET  #: absent if the role of the caller may not see it
    error_code: int
    error_message: str
    place: int | UnsetType = UNSET  #: in its group, in a list of members
    damaged: list[str] | UnsetType = UNSET  #: the result, if it is damaged on disk
    children: int | UnsetType = UNSET  #: number of invocations that it has queued, in a list of children


class ResultsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request_ids: Annotated[list[str], Meta(min_length=1, max_length=MOST)]
    wait: Annotated[float, Meta(ge=0, le=50)] = 0.0  #: seconds
    count: Annotated[int, Meta(ge=1)] = 1  #: ends to wait for


class ResultList(Struct, frozen=True, kw_only=True):
    results: list[ResultReply]
    unknown: list[str]


class ChildList(Struct, frozen=True, kw_only=True):
    invocations: list[ResultReply]
    next_after: str | None


class TreeCancelled(Struct, frozen=True, kw_only=True):
    cancelled: int
    more: bool


class Results:
    """Replies with results of invocations."""

    def __init__(self, catalog: Catalog, identity: Identity) -> None:
        self._catalog, self.identity = catalog, identity

    def reply(self, call: Call, record: Record, **more: int) -> ResultReply:
        """Return the reply about an invocation that has ended, with its result if the caller may see it."""
        sees = call.principal is None or call.principal.role == "invoke" or call.principal.sees_payloads
        result = record.result.decode("utf-8", "replace") if sees else UNSET
        return self.listed(record, **more, result=result, damaged=sorted(record.damaged) or UNSET)

    def listed(self, record: Record, **more: Any) -> ResultReply:
        return ResultReply(
            request_id=record.request_id,
            function=self.name(record),
            status=record.state,
            error_code=int(record.code),
            error_message=record.message,
            **more,
        )

    def is_own(self, call: Call, record: Record) -> bool:
        """Return whether an invocation is of the project of a request."""
        return self._catalog.project_of(record.function_id) == call.project

    def name(self, record: Record) -> str:
        function = self._catalog.resolve(record.function_id, record.version)
        return function.name if function is not None else ""


class ResultsApi(ApiFamily):
    def __init__(self, calls: Calls, records: Records, ends: Ends, groups: Groups, results: Results) -> None:
        self._calls, self._records, self._ends, self._groups = calls, records, ends, groups
        self._results, self._identity = results, results.identity

    @operation(
        "ListResults",
        "POST",
        f"{BASE}/async-invocations/results",
        ResultsBody,
        ResultList,
        own=True,
        roles=INVOKE_OR_READ,
        traced=False,
    )
    async def list_results(self, call: BodyCall[ResultsBody]) -> ResultList:
        """Return results of those invocations that have ended, when ``count`` have, or after ``wait`` seconds."""
        body = await call.read()
        keys = {key: text for text in body.request_ids if (key := self._identity.key_of(text)) is not None}
        loop, waits = asyncio.get_running_loop(), body.wait > 0
        over = loop.time() + body.wait
        while True:
            with self._ends.watching(keys) as end:
                _, ended, missing = await self._calls.ended(keys, -1)
                if not waits or ended + len(missing) >= min(body.count, len(keys)):
                    break
                await until_disconnected(call.receive, asyncio.wait([end], timeout=over - loop.time()))
                waits = end.done() and loop.time() < over
            await asyncio.sleep(GATHER)
        records, _, missing = await self._calls.ended(keys, SIZE)
        own = [record for record in records if self._results.is_own(call, record)]
        unknown = [text for text in body.request_ids if self._identity.key_of(text) in (None, *missing)]
        foreign = [record.request_id for record in records if not self._results.is_own(call, record)]
        return ResultList(results=[self._results.reply(call, record) for record in own], unknown=unknown + foreign)

    @read(
        "ListChildren",
        f"{INVOCATION}/children",
        ChildList,
        query=("after", "limit"),
        own=True,
        roles=INVOKE_OR_READ,
    )
    async def list_children(self, call: Call) -> ChildList:
        """List the invocations that the run of another has queued, oldest first."""
        record = await self._record(call)
        after = self._identity.key_of(call.text("after")) or 0
        limit = min(call.number("limit", 0) or 100, MOST)
        children = await self._calls.children(record.key, after, limit + 1)
        shown = [self._results.listed(record, children=count) for count, record in children[:limit]]
        return ChildList(invocations=shown, next_after=shown[-1].request_id if len(children) > limit else None)

    @operation("CancelTree", "POST", f"{INVOCATION}/cancel-tree", reply=TreeCancelled, own=True, roles=INVOKE)
    async def cancel_tree(self, call: Call) -> TreeCancelled:
        """Cancel an invocation and those of the tree that it has queued, in steps. Repeat while ``more``."""
        record = await self._record(call)
        unended = await self._calls.unended(record.key, STEP)
        cancelled = await self._groups.cancel_all(unended)
        return TreeCancelled(cancelled=cancelled, more=bool(unended))

    async def _record(self, call: Call) -> Record:
        request_id = call.part("request_id")
        key = self._identity.key_of(request_id)
        record = None if key is None else await self._records.get(key)
        if record is None or not self._results.is_own(call, record):
            raise UnknownInvocation(request_id)
        return record
