"""Protocol of executors, which run attempts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from engine.model.invocation import (
    Begin,
    Function,
    Invocation,
    Outcome,
)


class Executor(Protocol):
    """Executor: runs attempts of invocations in instances of their functions."""

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        """Run one attempt until it ends or the function's timeout is over.

        ``begin`` is called before the handler can begin, and again if the request is sent to another instance.
        Errors of user code do not raise an exception; they are returned as outcomes. Raises Deferred if the attempt has
        not begun, and no instance can start for it now.
        """
        ...

    def cancel(self, key: int) -> bool:
        """End a running invocation with code 4208 (cancelled), whatever its handler returns from now on.

        The executor may tell the handler first, and give it some seconds to clean up. Repeated calls have no effect.
        Return False if no invocation with this key runs.
        """
        ...

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        """Stop the instances of a function as soon as they are idle, except those of the revisions in ``keep``."""
        ...
