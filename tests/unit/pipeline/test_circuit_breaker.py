from __future__ import annotations

from random import Random

from engine.model import DestinationSpec
from engine.model.retry import RetryPolicy
from engine.pipeline.circuit_breaker import LONGEST, CircuitBreakers, DestinationStatus

NOW = 1_700_000_000.0
ONE = DestinationSpec(destination="ONE")


def breakers(failures: int) -> CircuitBreakers:
    """Return breakers whose destination failed so often in a row, each time as soon as a try was allowed."""
    found, now = CircuitBreakers(RetryPolicy(), Random(1)), NOW
    for _ in range(failures):
        now = max(now, found.until(ONE, now))
        found.failed(ONE, now)
    return found


def test_a_destination_is_left_alone_from_its_second_failure_in_a_row_until_it_takes_something() -> None:
    once, twice = breakers(1), breakers(2)

    assert once.until(ONE, NOW) <= NOW
    assert NOW < twice.until(ONE, NOW) <= NOW + LONGEST
    twice.succeeded(ONE)
    assert twice.until(ONE, NOW) <= NOW


def test_a_clock_that_is_set_back_does_not_prolong_how_long_a_destination_is_left_alone() -> None:
    found, earlier = breakers(2), NOW - 3600

    assert found.until(ONE, earlier) <= earlier
    found.failed(ONE, earlier)
    assert earlier < found.until(ONE, earlier) <= earlier + LONGEST


def test_the_state_of_a_destination_names_its_last_failure_and_the_start_of_all() -> None:
    found = CircuitBreakers(RetryPolicy(), Random(1))
    never = found.status(ONE, NOW)
    found.failed(ONE, NOW, "refused")
    once = found.status(ONE, NOW)
    found.failed(ONE, NOW + 5, "no such host")
    twice = found.status(ONE, NOW + 5)
    later = found.status(ONE, twice.next_try)
    found.succeeded(ONE)

    assert never == DestinationStatus()
    assert (once.state, once.problem, once.since, once.failures) == ("failing", "refused", NOW, 1)
    assert (twice.state, twice.problem, twice.since, twice.failures) == ("paused", "no such host", NOW, 2)
    assert NOW + 5 < twice.next_try <= NOW + 5 + LONGEST
    assert (later.state, later.next_try) == ("failing", 0.0)
    assert found.status(ONE, NOW + 6) == DestinationStatus()
