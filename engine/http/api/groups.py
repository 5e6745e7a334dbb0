"""Groups of calls: creation, seal, progress and members."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct

from engine.errors import BadQuery, UnknownGroup
from engine.http.api.batches import BATCH_LIMIT, IdempotencyKey
from engine.http.api.calls import (
    MOST_MEMBERS,
    CallReader,
    Continuations,
    Number,
    Parents,
    group_key,
)
from engine.http.api.results import MOST, SIZE, ResultReply, Results
from engine.http.api.routing import BASE, INVOKE, INVOKE_OR_READ, ApiFamily, BodyCall, Call, operation, read
from engine.http.api.times import exact_time
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.pipeline.calls import CallIntake
from engine.pipeline.groups import UNSEALED, Groups
from engine.protocols.calls import Calls, Group, GroupState, NewGroup

GROUP = f"{BASE}/groups/{{group_id}}"
STATES = {GroupState.DECIDED: "RUNNING", GroupState.CANCELLING: "CANCELLED"}


class GroupBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    then: Continuations = []
    require: Annotated[str, Meta(pattern="^(all|ended)$", description="must be all or ended")] = "all"
    key: IdempotencyKey | None = None
    parent: str = ""
    n: Number = 0


class GroupCreated(Struct, frozen=True, kw_only=True):
    group_id: str
    request_id: str  #: of the last continuation; empty: there is none


class SealBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    total: Annotated[int, Meta(ge=0, le=MOST_MEMBERS)]


class GroupReply(Struct, frozen=True, kw_only=True):
    group_id: str
    state: str  #: FILLING, RUNNING, SUCCESS, FAIL, CANCELLED or ABANDONED
    require: str
    total: int | None  #: null: it is not sealed
    stored: int
    done: int
    failed: int
    create_time: str
    end_time: str | None
    message: str
    request_id: str


class MemberList(Struct, frozen=True, kw_only=True):
    members: list[ResultReply]
    next_after: int | None


class GroupPlace(Struct, frozen=True, kw_only=True):
    id: str
    place: int


class LinkReplies:
    """Links of invocations with others, for replies about them."""

    def __init__(self, calls: Calls, identity: Identity, wake: Callable[[], None]) -> None:
        self._calls, self.identity, self._wake = calls, identity, wake

    async def of(self, key: int) -> dict[str, Any]:
        """Return the fields of a record that tell its links."""
        links, request_id = await self._calls.links(key), self.identity.request_id
        fields: dict[str, Any] = {
            "parent": request_id(links.parent) if links.parent else UNSET,
            "children": links.children or UNSET,
        }
        if links.group:
            fields["group"] = GroupPlace(id=request_id(links.group), place=links.place)
        if links.waits_for is not None:
            fields["waits_for"] = group_reply(links.waits_for, self.identity)
        return fields

    async def cancel(self, key: int, project: str) -> None:
        """Cancel all that an invocation waits for, if it is a continuation."""
        with suppress(UnknownGroup):
            await self._calls.cancel(key, project)
            self._wake()

    def parent(self, request_id: str) -> int:
        """Return the key that a query names; 0 without one. Raises BadQuery."""
        key = self.identity.key_of(request_id) if request_id else 0
        if key is None:
            raise BadQuery("parent", request_id, "must be a request id")
        return key


class GroupsApi(ApiFamily):
    def __init__(
        self,
        calls: Calls,
        intake: CallIntake,
        groups: Groups,
        reader: CallReader,
        parents: Parents,
        results: Results,
        clock: Clock,
    ) -> None:
        self._calls, self._intake, self._groups, self._clock = calls, intake, groups, clock
        self._reader, self._parents, self._results = reader, parents, results
        self._identity = results.identity

    @operation(
        "CreateGroup",
        "POST",
        f"{BASE}/groups",
        GroupBody,
        GroupCreated,
        limit=BATCH_LIMIT,
        status=201,
        own=True,
        roles=INVOKE,
    )
    async def create(self, call: BodyCall[GroupBody]) -> GroupCreated:
        """Create a group, and store its continuations. The same key again returns the same group."""
        body = await call.read()
        now = self._clock.now()
        group = NewGroup(key=0, project=call.project, need_all=body.require == "all", created=now, token=body.key or "")
        steps = self._reader.steps(body.then, call.project)
        key, last = await self._intake.create(group, steps, body.n, self._parents.of(call, body.parent))
        self._groups.note_time(now + min([UNSEALED + 1, *(step.expires for step in steps if step.expires)]))
        request_id = self._identity.request_id
        return GroupCreated(group_id=request_id(key), request_id=request_id(last) if last else "")

    @operation("SealGroup", "POST", f"{GROUP}/seal", SealBody, GroupReply, own=True, roles=INVOKE, traced=False)
    async def seal(self, call: BodyCall[SealBody]) -> GroupReply:
        """Set the number of members of a group, all of which are stored."""
        body = await call.read()
        await self._calls.seal(group_key(self._identity, call.part("group_id")), call.project, body.total)
        self._groups.wake()
        return await self._reply(call)

    @operation("CancelGroup", "POST", f"{GROUP}/cancel", reply=GroupReply, own=True, roles=INVOKE)
    async def cancel(self, call: Call) -> GroupReply:
        """Cancel a group and all of its members that have not ended, in the background."""
        await self._calls.cancel(group_key(self._identity, call.part("group_id")), call.project)
        self._groups.wake()
        return await self._reply(call)

    @read("ShowGroup", GROUP, GroupReply, own=True, roles=INVOKE_OR_READ)
    async def show(self, call: Call) -> GroupReply:
        return await self._reply(call)

    @read(
        "ListMembers",
        f"{GROUP}/members",
        MemberList,
        query=("after", "limit"),
        own=True,
        roles=INVOKE_OR_READ,
    )
    async def list_members(self, call: Call) -> MemberList:
        """List members in the order of their places, with results of about 6 MiB at most."""
        group = await self._group(call)
        after = call.number("after", 0) if call.text("after") else -1
        limit = min(call.number("limit", 0) or MOST, MOST)
        members, more = await self._calls.members(group.key, after, limit, SIZE)
        shown = [self._results.reply(call, record, place=place) for place, record in members]
        return MemberList(members=shown, next_after=members[-1][0] if more else None)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _group(self, call: Call) -> Group:
        group = await self._calls.group(group_key(self._identity, call.part("group_id")))
        if group is None or group.project != call.project or group.chain:
            raise UnknownGroup(call.part("group_id"))
        return group

    async def _reply(self, call: Call) -> GroupReply:
        return group_reply(await self._group(call), self._identity)


def group_reply(group: Group, identity: Identity) -> GroupReply:
    state = STATES.get(group.state, group.state.name)
    if group.state is GroupState.OPEN:
        state = "FILLING" if group.total is None else "RUNNING"
    return GroupReply(
        group_id=identity.request_id(group.key),
        state=state,
        require="all" if group.need_all else "ended",
        total=group.total,
        stored=group.stored,
        done=group.done,
        failed=group.failed,
        create_time=exact_time(group.created),
        end_time=None if group.ended is None else exact_time(group.ended),
        message=group.message,
        request_id=identity.request_id(group.last) if group.last else "",
    )
