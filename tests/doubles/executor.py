"""Doubles of the executor: functions run as Python callables (handlers) in the test's process, or not at all."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from engine.executors.idle import Reserve
from engine.executors.nodes.report import Nodes
from engine.model import Begin, Code, Function, Invocation, Outcome
from engine.model.clock import Clock, SystemClock

Handler = Callable[[Any, "InlineContext"], Any]


class InlineContext(Struct, frozen=True, kw_only=True):
    """Context object that a handler gets."""

    function: Function
    invocation: Invocation


class InlineExecutor:
    """Executor that calls Python handlers. ``handlers`` has the handler of each function by the function's name.

    Results must be None, text or JSON. A handler that does not await cannot be interrupted by a
    timeout or ``cancel``. Tests may read ``running``, ``done`` and ``retired``.
    """

    def __init__(self, handlers: Mapping[str, Handler], clock: Clock | None = None) -> None:
        self._handlers, self._clock = handlers, clock or SystemClock()
        self._cancelled: set[int] = set()
        self.running: dict[int, asyncio.Future[Any]] = {}
        self.done: list[Invocation] = []  #: ended attempts, in the order of their end
        self.retired: list[tuple[int, frozenset[int]]] = []

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        started_at = self._clock.now()
        key = invocation.key
        self.running[key] = run = asyncio.ensure_future(self._run(function, invocation, begin))
        try:
            code, message, result = await run
        except asyncio.CancelledError:
            if key not in self._cancelled:
                run.cancel()
                raise
            code, message, result = Code.CANCELLED, "the invocation was cancelled", b""
        finally:
            self._cancelled.discard(key)
            del self.running[key]
            self.done.append(invocation)
        return Outcome(code=code, message=message, result=result, started_at=started_at, ended_at=self._clock.now())

    def cancel(self, key: int) -> bool:
        run = self.running.get(key)
        if run is None or run.done():
            return False
        self._cancelled.add(key)
        run.cancel()
        return True

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        self.retired.append((function_id, frozenset(keep)))

    async def _run(self, function: Function, invocation: Invocation, begin: Begin | None) -> tuple[Code, str, bytes]:
        if begin is not None and (stored := begin()) is not None:
            await stored
        handler = self._handlers[function.name]
        try:
            async with asyncio.timeout(function.timeout) as limit:
                value = handler(json.loads(invocation.payload), InlineContext(function=function, invocation=invocation))
                if inspect.isawaitable(value):
                    value = await value
        except (Exception, SystemExit) as error:
            if limit.expired():
                return Code.TIMEOUT, f"Invoke function timeout: it ran longer than {function.timeout} s", b""
            return Code.USER_EXCEPTION, f"function invocation exception, error: {type(error).__name__}: {error}", b""
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        return Code.OK, "", text.encode()


class NoInstances:
    """Pool that starts no instance."""

    function_uids = range(0)
    walls: Mapping[str, str] = {"network": "host"}
    nodes: Nodes | None = None

    def __init__(self) -> None:
        self.reserve = Reserve(())

    async def warm(self, function: Function) -> bool:
        return False

    def function_of(self, instance_id: str) -> Function | None:
        return None
