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
    """Runs one attempt in an instance of the function."""

    async def execute(self, function: Function, invocation: Invocation) -> Outcome:
        """Run it to its end or to the function's timeout. Whatever user code does is an Outcome."""
        ...

    def cancel(self, key: int) -> bool:
        """End the running invocation at once, with Outcome 4208; False if it does not run here."""
        ...

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        """Drop a function's idle instances, but for those of the revisions to ``keep``; busy ones go when done."""
        ...
