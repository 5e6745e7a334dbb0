"""Errors of requests that the controls of a function refuse."""

from __future__ import annotations

from engine.errors.errors import Conflict


class FunctionPaused(Conflict):
    """Synchronous request to a paused function. Asynchronous requests are accepted and wait."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"the function {name} is paused{why}; resume it, or invoke it asynchronously to queue the event"
        )
