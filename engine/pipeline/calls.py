"""Acceptance of calls: requests that code queues, each with continuations, as members of a group or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import FunctiondError, Overloaded
from engine.model import Function, Invocation, Request
from engine.model.identity import Identity
from engine.model.urn import FunctionUrn
from engine.pipeline.intake import Intake, InvocationFactory
from engine.protocols.calls import Calls, Membership, NewCall, NewGroup
from engine.scheduling.backlog import Backlog

TURN = 100  #: calls that are accepted until other work of the loop has its turn


class Step(Struct, frozen=True, kw_only=True):
    """Invocation of a call: the first one, or a continuation."""

    request: Request
    expires: float | None = None  #: seconds from acceptance


class Call(Struct, frozen=True, kw_only=True):
    steps: tuple[Step, ...]
    number: int = 0  #: how often the parent has queued the same before
    unique: bool = False


class CallIntake:
    """Acceptance of calls and groups. ``most_depth`` is the largest depth, see ``QueueSettings``."""

    def __init__(
        self,
        intake: Intake,
        factory: InvocationFactory,
        identity: Identity,
        backlog: Backlog,
        calls: Calls,
        most_depth: int,
    ) -> None:
        self._intake, self._factory, self._identity = intake, factory, identity
        self._backlog, self._calls, self._most_depth = backlog, calls, most_depth

    async def accept(
        self, calls: Sequence[Call | FunctiondError], parent: Invocation | None, group: Membership | None
    ) -> Sequence[str | FunctiondError]:
        """Store calls and return a request id or error for each, in their order.

        An error in place of a call is returned, or raised in a group: its calls are stored all or not at all. If the
        backlog has no room for a call, those after it are refused, too. Raises the errors of ``Calls.append``, and
        Unavailable.
        """
        results: list[str | FunctiondError] = [""] * len(calls)
        places: list[int] = []
        made: list[NewCall] = []
        routes: dict[FunctionUrn, Function] = {}
        full: FunctiondError | None = None
        try:
            for place, call in enumerate(calls):
                if place % TURN == TURN - 1:
                    await asyncio.sleep(0)
                new = full or (call if isinstance(call, FunctiondError) else self._try(call, parent, routes, group))
                if not isinstance(new, FunctiondError):
                    places.append(place)
                    made.append(new)
                    continue
                if isinstance(call, Call):
                    self._intake.count_refusal(new, call.steps[0].request)
                if group is not None:
                    new.args = (f"calls[{place}]: {new}",)
                    raise new
                results[place] = new
                full = full or (new if isinstance(new, Overloaded) else None)
            if not made:
                return results
            stored = self._calls.append(
                made,
                parent=parent.key if parent else 0,
                most_depth=self._most_depth,
                group=group,
                then=self._intake.queue_each,
            )
        except BaseException:
            self._remove(invocation for new in made for invocation in new.invocations)
            raise
        for place, result in zip(places, await stored, strict=True):
            results[place] = result
        return results

    async def create(
        self, group: NewGroup, steps: tuple[Step, ...], number: int, parent: Invocation | None
    ) -> tuple[int, int]:
        """Store a group with its continuations. Return its key and that of its last continuation, or 0.

        ``group`` has the idempotency key as its token, and a key of its own only if there are no ``steps``.
        """
        if parent is not None and not group.token:
            content = b"\0".join((_content(steps), b"%d %d" % (group.need_all, number)))
            group = replace(group, token=f"{parent.key}:{blake2b(content, digest_size=16).hexdigest()}")
        else:
            group = replace(group, token=group.token and f"key:{group.token}")
        first = None
        if steps:
            new = self._try(Call(steps=steps), parent, {}, None)
            if isinstance(new, FunctiondError):
                raise new
            held = tuple(replace(invocation, held=True) for invocation in new.invocations)
            first = replace(new, invocations=held, token=b"")
        key = first.invocations[0].key if first else self._identity.next_key(group.created)
        try:
            stored = self._calls.create(
                replace(group, key=key, continuation=first),
                parent=parent.key if parent else 0,
                most_depth=self._most_depth,
                then=self._intake.queue_each,
            )
        except BaseException:
            self._remove(first.invocations if first else ())
            raise
        return await stored

    def _try(
        self,
        call: Call,
        parent: Invocation | None,
        routes: dict[FunctionUrn, Function],
        group: Membership | None,
    ) -> NewCall | FunctiondError:
        """Make the invocations of a call and count them in the backlog. Return the error that prevents it, if any."""
        made: list[Invocation] = []
        try:
            for step in call.steps:
                request = step.request
                if parent is not None and (parent.hops or parent.trace):
                    request = replace(request, hops=parent.hops, trace=request.trace or parent.trace)
                function = None if request.function.alias else routes.get(request.function)
                if function is None:
                    function = routes[request.function] = self._intake.route(request)
                new = self._factory.make(request, function)
                self._backlog.admit(new.function_id, len(new.payload), function.name, kept=parent is not None)
                above = parent.request_id if parent else ""
                made.append(replace(new, held=bool(made), parent=above) if made or above else new)
        except FunctiondError as error:
            self._remove(made)
            return error
        first, key = made[0], call.steps[0].request.idempotency_key
        content = first.payload if len(made) == 1 else _content(call.steps)
        return NewCall(
            project=call.steps[0].request.function.project,
            invocations=tuple(made),
            expires=tuple(
                [s.expires and one.accepted_on_clock + s.expires for s, one in zip(call.steps, made, strict=True)]
            ),
            key=key,
            content=content,
            token=_digest(first, call.number, content, group.group if group else 0) if parent and not key else b"",
            only=_digest(first, 0, first.payload) if call.unique else b"",
        )

    def _remove(self, invocations: Iterable[Invocation]) -> None:
        for invocation in invocations:
            self._backlog.remove(invocation.function_id, len(invocation.payload))


def _content(steps: tuple[Step, ...]) -> bytes:
    """Return all that a repetition of steps repeats."""
    return b"\0".join(part for step in steps for part in (str(step.request.function).encode(), step.request.payload))


def _digest(first: Invocation, number: int, content: bytes, group: int = 0) -> bytes:
    return blake2b(b"%d %d %d %b" % (first.function_id, number, group, content), digest_size=16).digest()
