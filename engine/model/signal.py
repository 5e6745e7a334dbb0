"""Signals: events of one component to which the wiring connects functions of other components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Signal(Generic[P]):
    """Event that calls the connected functions, in the order of their connection.

    The component that owns the signal calls it. Only ``engine.app`` connects functions, or hands ``connected`` to a
    component, so that one place shows which components call which.
    """

    __slots__ = ("_receivers",)

    def __init__(self) -> None:
        self._receivers: tuple[Callable[P, object], ...] = ()

    def connect(self, receiver: Callable[P, object]) -> None:
        """Call ``receiver`` at each later event. An error that it raises reaches the owner of the signal."""
        self._receivers = (*self._receivers, receiver)

    @contextmanager
    def connected(self, receiver: Callable[P, object]) -> Iterator[None]:
        """Call ``receiver`` at each event until the block ends, such as for as long as a client listens."""
        self.connect(receiver)
        try:
            yield
        finally:
            receivers = list(self._receivers)
            receivers.remove(receiver)
            self._receivers = tuple(receivers)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for receiver in self._receivers:
            receiver(*args, **kwargs)
