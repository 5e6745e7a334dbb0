"""Protocol of executors, which run attempts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from engine.model.invocation import (
    Function,
    Invocation,
    Outcome,
)


class Executor(Protocol):
    """Executor: runs attempts of invocations in instances of their functions."""

    async def execute(self, function: Function, invocation: Invocation) -> Outcome:
        """Run one attempt to its end or to the function's timeout.

        Errors of user code never raise an exception; they are returned as outcomes.
        """
        ...

    def cancel(self, key: int) -> bool:
        """End a running invocation now, with code 4208. Return False if the invocation does not run."""
        ...

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        """Stop a function's instances as soon as they are idle, except those of the revisions in ``keep``."""
        ...
