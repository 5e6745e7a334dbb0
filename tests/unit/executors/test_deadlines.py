"""Deadlines of calls: one timer of the loop for all calls of an instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from engine.executors.call import Call
from engine.executors.instance import Deadlines


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Clock and timers of an event loop, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    @property
    def pending(self) -> list[float]:
        return [timer.at for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted(
            (timer for timer in self.timers if not timer.cancelled and timer.at <= end), key=lambda one: one.at
        ):
            self.timers.remove(due[0])
            self.now = due[0].at
            due[0].callback()
        self.now = end


class Calls:
    """Calls of an instance, their deadlines, and the tickets of those that expired."""

    def __init__(self) -> None:
        self.loop, self.calls, self.expired = Loop(), dict[int, Call](), list[tuple[float, int]]()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.deadlines = Deadlines(loop, self.calls, lambda call: self.expired.append((self.loop.now, call.ticket)))

    def begin(self, ticket: int, seconds: float) -> None:
        call = self.calls[ticket] = Call((1, "latest", 0, 128), cast("Any", None), None)
        call.ticket = ticket
        self.deadlines.set(call, seconds)


def test_a_call_expires_at_its_deadline() -> None:
    calls = Calls()
    calls.begin(1, 3.0)

    calls.loop.advance(2.999)
    assert calls.expired == []

    calls.loop.advance(0.001)
    assert calls.expired == [(103.0, 1)]


def test_calls_one_after_the_other_use_one_timer() -> None:
    calls = Calls()
    for ticket in range(1, 1001):
        calls.begin(ticket, 3.0)
        calls.loop.advance(0.001)
        del calls.calls[ticket]

    assert len(calls.loop.timers) == 1

    calls.loop.advance(10.0)
    assert (calls.expired, calls.loop.pending) == ([], [])


def test_each_call_has_its_own_deadline() -> None:
    calls = Calls()
    calls.begin(1, 5.0)
    calls.loop.advance(1.0)
    calls.begin(2, 5.0)
    calls.begin(3, 0.5)
    calls.begin(4, 9.0)

    calls.loop.advance(20.0)

    assert calls.expired == [(101.5, 3), (105.0, 1), (106.0, 2), (110.0, 4)]
    assert calls.loop.pending == []


def test_no_call_expires_after_the_end_of_the_instance() -> None:
    calls = Calls()
    calls.begin(1, 5.0)

    calls.deadlines.cancel()
    calls.loop.advance(20.0)

    assert calls.expired == []
