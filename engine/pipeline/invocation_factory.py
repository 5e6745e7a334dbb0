"""Creation of invocations: key, request id, rank and due time of an accepted request."""

from __future__ import annotations

from functools import cache

from msgspec.structs import replace

from engine.functions.function_rules import priority_cap
from engine.model import Function, Invocation, Request
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.trace import HEADER, trace_of
from engine.model.urn import LATEST
from engine.runtimes.catalog import Family, find_runtime


class InvocationFactory:
    """Maker of new invocations. ``priority_step`` is in seconds, see ``QueueSettings``."""

    def __init__(self, identity: Identity, clock: Clock, priority_step: float) -> None:
        self._identity, self._priority_step = identity, priority_step
        self._now, self._expiry = clock.now, clock.expiry

    def make(self, request: Request, function: Function) -> Invocation:
        """Return a new invocation for a request. The invocation is neither stored nor counted in the backlog."""
        now, identity, headers = self._now(), self._identity, request.headers
        due_at = now + request.delay
        priority = min(request.priority, priority_cap(function)) if request.priority else 0
        key = identity.next_key(now)
        made = Invocation(  # at most 15 arguments: CPython passes more of them by a dictionary, three times slower
            key=key,
            request_id=identity.request_id(key),
            function_id=function.function_id,
            version=function.version,
            alias=request.function.alias or "",
            mode=request.mode,
            source=request.source,
            payload=_payload(request, function),
            priority=priority,
            rank=due_at - priority * self._priority_step,
            first_due_at=due_at,
            due_at=due_at,
            delayed=request.delay > 0,
            hops=request.hops,
            # 0 stands for the memory of ``latest``, with which the queue is configured.
            memory=request.memory or (0 if function.version == LATEST else function.memory_size),
        )
        if trace := request.trace or (trace_of(headers[HEADER]) if headers is not None and HEADER in headers else ""):
            made = replace(made, trace=trace)
        if request.ordering_key:
            made = replace(made, ordering_key=request.ordering_key)
        if request.trigger_id or request.cause:
            made = replace(made, trigger_id=request.trigger_id, cause=request.cause)
        in_doubt = self._expiry.check() if request.idempotency_key else self._expiry.held
        return replace(made, trusted_at=self._expiry.now()) if in_doubt else made


def _payload(request: Request, function: Function) -> bytes:
    """Return the payload for ``function``. The version that an alias chooses decides whether it is an HTTP function."""
    if request.http_members is not None and _takes_http(function.runtime):
        return b"%b,%b}" % (request.payload[:-1], request.http_members())
    return request.payload


@cache
def _takes_http(runtime: str) -> bool:
    found = find_runtime(runtime)
    return found is not None and found.family is Family.HTTP
