"""Execution of one attempt."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from engine.model.invocation import (
    Function,
    Invocation,
    Outcome,
)


class Executor(Protocol):
    """Executor of attempts in instances of functions."""

    async def execute(self, function: Function, invocation: Invocation) -> Outcome:
        """Run one attempt to its end or to the function's timeout.

        User code never causes an exception here: everything it does becomes an outcome.
        """
        ...

    def cancel(self, key: int) -> bool:
        """End a running invocation at once, with outcome 4208. Return False if it does not run."""
        ...

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        """Drop a function's idle instances, except those of the revisions to ``keep``. Busy ones exit when idle."""
        ...
