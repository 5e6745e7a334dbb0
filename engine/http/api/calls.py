"""Calls that code queues: of any functions, with continuations, from outside or by a running function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engine.asgi.wire import Reply
from engine.errors import AccessDenied, FunctiondError, InvalidField, ParentEnded, PayloadTooLarge, UnknownGroup
from engine.http.api.batches import BATCH_LIMIT, MOST_EVENTS, BatchReply, IdempotencyKey, OrderingKey, reply_to
from engine.http.api.routing import BASE, INVOKE, ApiFamily, BodyCall, Call, operation, own_urn
from engine.model import Invocation, Request
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import LONGEST_DELAY
from engine.pipeline.calls import TURN, CallIntake, Step
from engine.pipeline.calls import Call as NewCall
from engine.pipeline.groups import NO_EVENT, Arguments, Groups
from engine.protocols.calls import CALL, Membership

MOST_STEPS = 100  #: continuations of a call
MOST_MEMBERS = 100_000
Delay = Annotated[float, Meta(ge=0, le=LONGEST_DELAY)]
Priority = Annotated[int, Meta(ge=0, le=9)]
Number = Annotated[int, Meta(ge=0, le=1 << 53)]


class ContinuationBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Invocation that begins when another has ended well. ``event`` has the arguments behind the result."""

    function: str
    event: Raw | UnsetType = UNSET
    delay: Delay | None = None  #: seconds from then
    expires: Annotated[float, Meta(gt=0, le=LONGEST_DELAY)] | None = None
    priority: Priority | None = None


Continuations = Annotated[list[ContinuationBody], Meta(max_length=MOST_STEPS)]


class CallBody(ContinuationBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: IdempotencyKey | None = None
    at: datetime | None = None  #: time at which it is due, with its zone; in place of ``delay``
    ordering_key: OrderingKey | None = None
    unique: bool = False  #: one of the function and the event, until it has ended
    n: Number = 0  #: how often the run has queued the same before
    then: Continuations = []


class MembershipBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    first: Annotated[int, Meta(ge=0, lt=MOST_MEMBERS)]  #: place of the first call


class CallsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    calls: Annotated[list[CallBody], Meta(min_length=1, max_length=MOST_EVENTS)]
    parent: str = ""  #: request id of the running invocation that queues them
    group: MembershipBody | None = None


class Parents:
    """Running invocations by whose instances calls are queued.

    ``find(key, instance)`` returns the invocation if it runs in this instance.
    """

    def __init__(self, identity: Identity, find: Callable[[int, str], Invocation | None]) -> None:
        self._identity, self._find = identity, find

    def of(self, call: Call, request_id: str) -> Invocation | None:
        """Return the parent that a request names; None if it names none. Raises AccessDenied or ParentEnded."""
        if not request_id:
            return None
        if call.principal is None or not call.principal.instance:
            raise AccessDenied("only an instance may name a parent: send its X-Auth-Token, or leave parent out")
        key = self._identity.key_of(request_id)
        parent = None if key is None else self._find(key, call.principal.instance)
        if parent is None:
            raise ParentEnded(request_id)
        return parent


class CallReader:
    """Reader of calls in bodies. Events have up to ``limit`` bytes."""

    def __init__(self, region: str, clock: Clock, limit: int) -> None:
        self._region, self._clock, self._limit = region, clock, limit

    def read(self, body: CallBody, project: str, *, member: bool) -> NewCall | FunctiondError:
        """Return a call, or the error in its fields."""
        try:
            delay = body.delay or 0.0
            if body.at is not None:
                if body.at.tzinfo is None or body.delay is not None:
                    raise InvalidField("at", body.at.isoformat(), "needs a time zone, and excludes delay")
                delay = max(0.0, body.at.timestamp() - self._clock.now())
                if delay > LONGEST_DELAY:
                    raise InvalidField("at", body.at.isoformat(), f"must be within {LONGEST_DELAY:.0f} s")
            if body.unique and (body.then or body.key or member):
                raise InvalidField("unique", True, "excludes key, then and groups")
            payload = b"{}" if body.event is UNSET else bytes(body.event)
            first = self._request(body, project, payload, delay, body.key or "", body.ordering_key or "")
            steps = (Step(request=first, expires=body.expires), *self.steps(body.then, project))
            return NewCall(steps=steps, number=body.n, unique=body.unique)
        except FunctiondError as error:
            return error

    def steps(self, bodies: Sequence[ContinuationBody], project: str) -> tuple[Step, ...]:
        """Return continuations. Raises InvalidField, AccessDenied and PayloadTooLarge."""
        steps: list[Step] = []
        for place, body in enumerate(bodies):
            payload = NO_EVENT
            if body.event is not UNSET:
                try:
                    payload = msgspec.json.encode(msgspec.json.decode(bytes(body.event), type=Arguments))
                except msgspec.ValidationError:
                    text = 'must be {"args": [...], "kwargs": {...}}, to which the result is added'
                    raise InvalidField(f"then[{place}].event", "…", text) from None
            steps.append(Step(request=self._request(body, project, payload, body.delay or 0.0), expires=body.expires))
        return tuple(steps)

    def _request(
        self,
        body: ContinuationBody,
        project: str,
        payload: bytes,
        delay: float,
        key: str = "",
        ordering_key: str = "",
    ) -> Request:
        if len(payload) > self._limit:
            raise PayloadTooLarge(self._limit)
        return Request(
            function=own_urn(body.function, project, self._region),
            payload=payload,
            source=CALL,
            priority=body.priority or 0,
            delay=delay,
            idempotency_key=key,
            ordering_key=ordering_key,
        )


class CallsApi(ApiFamily):
    def __init__(
        self, intake: CallIntake, reader: CallReader, parents: Parents, groups: Groups, identity: Identity, clock: Clock
    ) -> None:
        self._intake, self._reader, self._parents = intake, reader, parents
        self._groups, self._identity, self._clock = groups, identity, clock

    @operation(
        "QueueCalls",
        "POST",
        f"{BASE}/calls",
        CallsBody,
        BatchReply,
        limit=BATCH_LIMIT,
        status=202,
        own=True,
        roles=INVOKE,
        hidden={"read": ("results",)},  # so that request ids are not searched for credentials
        traced=False,
    )
    async def accept(self, call: BodyCall[CallsBody]) -> Reply:
        """Queue calls. The reply has the request id of the last invocation of each, or its error.

        Calls of a group are stored all or not at all.
        """
        body = await call.read()
        member = None
        if body.group is not None:
            if body.group.first + len(body.calls) > MOST_MEMBERS:
                raise InvalidField("group.first", body.group.first, f"a group has up to {MOST_MEMBERS} members")
            key = group_key(self._identity, body.group.id)
            member = Membership(group=key, project=call.project, first=body.group.first)
        calls: list[NewCall | FunctiondError] = []
        for each in body.calls:
            if len(calls) % TURN == TURN - 1:
                await asyncio.sleep(0)
            calls.append(self._reader.read(each, call.project, member=member is not None))
        results = await self._intake.accept(calls, self._parents.of(call, body.parent), member)
        expires = [step.expires for each in body.calls for step in (each, *each.then) if step.expires is not None]
        if expires:
            self._groups.note_time(self._clock.now() + min(expires))
        return reply_to(results)


def group_key(identity: Identity, group_id: str) -> int:
    key = identity.key_of(group_id)
    if key is None:
        raise UnknownGroup(group_id)
    return key
