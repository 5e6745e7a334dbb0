"""Counters of functions and sources."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from engine.metrics.function_metrics import OTHER, FunctionCounters, FunctionMetrics, Labels
from engine.model import Code, Function, Invocation, Mode, Outcome, State
from engine.protocols import Settlement
from tests.support.builders import a_function, waiting

REST: Labels = ("", "", OTHER, OTHER)


class Counted:
    """Metrics of functions with ids from 1 to 5, and the methods that tests call."""

    def __init__(self, limit: int = 10) -> None:
        self.functions = {number: function(number) for number in range(1, 6)}
        self.metrics = FunctionMetrics(self.functions.get, limit)

    def run(self, function_id: int, *, code: int = 0, state: State = State.SUCCESS, **fields: Any) -> None:
        """Count an invocation from its acceptance to its end; it waits for 2 s and runs for 1 s."""
        invocation = waiting(function_id, due_at=10.0, **fields)
        self.metrics.note_accepted(invocation)
        self.end(invocation, code=code, state=state)

    def end(self, invocation: Invocation, *, code: int = 0, state: State = State.SUCCESS) -> None:
        outcome = Outcome(code=code, started_at=12.0, ended_at=13.0)
        self.metrics.note_attempt(function(invocation.function_id), invocation, outcome)
        if invocation.mode is Mode.ASYNC:
            self.metrics.note_end(Settlement(invocation=invocation, state=state, outcome=outcome))

    def of(self, function_id: int, source: str = "API") -> FunctionCounters:
        return dict(self.metrics.all())[self.metrics.labels_of(function_id, source)]

    def delete(self, function_id: int) -> None:
        del self.functions[function_id]
        self.metrics.follow(function_id, None)


def function(function_id: int) -> Function:
    return a_function(function_id=function_id, name=f"f{function_id}")


def test_a_synchronous_call_ends_with_its_attempt() -> None:
    counted = Counted()

    counted.run(1, mode=Mode.SYNC)
    counted.run(1, mode=Mode.SYNC, code=Code.TIMEOUT)

    assert counted.of(1).ended == {"SUCCESS": 1, "FAIL": 1}
    assert (counted.of(1).wait_seconds.snapshot().total, counted.of(1).run_seconds.snapshot().total) == (4.0, 2.0)


def test_drops_have_their_reasons() -> None:
    counted = Counted()
    metrics = counted.metrics

    metrics.note_refused(1, "API", "backlog_full")
    metrics.note_refused(None, "API", "unknown_function")
    for state, code in ((State.DISCARD, Code.EXPIRED), (State.FAIL, Code.USER_EXCEPTION)):
        metrics.note_end(Settlement(invocation=waiting(1), state=state, outcome=Outcome(code=code)))
    metrics.note_removed(1, Code.CANCELLED, 3)

    assert counted.of(1).dropped == {"backlog_full": 1, "expired": 1}
    assert (counted.of(1).refused, counted.of(1).ended) == (1, {"DISCARD": 1, "FAIL": 1})
    assert (counted.of(1, "").dropped, counted.of(1, "").ended) == ({"cancelled": 3}, {"FAIL": 3})
    assert dict(metrics.all())[REST].refused == 0


def test_sums_over_all_labels_do_not_fall_when_a_function_is_deleted() -> None:
    counted = Counted(limit=2)
    for function_id in (1, 1, 2, 3):
        counted.run(function_id)
    late = waiting(1)

    counted.metrics.note_accepted(late)
    counted.delete(1)
    counted.end(late)  # ran while its function was deleted
    counted.run(4)  # gets the labels that are free now

    assert [labels[2] for labels, _ in counted.metrics.all()] == ["f2", "f4", OTHER]
    rest = counted.of(1)
    assert (rest.accepted, rest.ended, rest.run_seconds.snapshot().count) == (4, {"SUCCESS": 4}, 4)


def test_deliveries_are_counted_by_destination_and_result() -> None:
    counted = Counted()

    for result in ("failed", "failed", "delivered"):
        counted.metrics.note_delivery(1, "API", "OBS", result)

    assert counted.of(1).deliveries == {("OBS", "failed"): 2, ("OBS", "delivered"): 1}


def test_a_change_of_a_function_keeps_its_counts() -> None:
    counted = Counted()
    counted.run(1)

    counted.metrics.follow(1, replace(function(1), timeout=4))

    assert counted.of(1).accepted == 1
