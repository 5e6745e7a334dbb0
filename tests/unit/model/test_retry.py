from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import AsyncSettings, Code, Invocation, Outcome
from engine.model.delays import LONGEST_RETRY, doubtful_after
from engine.model.retry import RetryPolicy, Rules
from tests.support.builders import waiting

POLICY = RetryPolicy(base=1.0, factor=2.0, longest=60.0, jitter=0.2)
FUNCTION_ERROR = Outcome(code=Code.USER_EXCEPTION)
OUR_FAULT = Outcome(code=Code.ENGINE)


def next_attempt(
    outcome: Outcome, *, retries: int = 1, max_age: float = math.inf, now: float = 0.0, **fields: int
) -> Invocation | None:
    rules = Rules(retries=retries, max_age=max_age)
    return POLICY.next_attempt(waiting(**fields), outcome, rules, now=now, jitter_sample=0.5, priority_step=60.0)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_no_retry_is_taken_for_one_of_a_wrong_clock(jitter: float) -> None:
    policy = RetryPolicy(base=LONGEST_RETRY, factor=2.0, longest=LONGEST_RETRY, jitter=jitter)
    due_after, _ = doubtful_after(0.0)

    assert policy.delay(9, math.nextafter(1.0, 0.0)) <= due_after


def test_a_function_error_uses_up_a_retry() -> None:
    retry = next_attempt(FUNCTION_ERROR, retries=1)

    assert retry is not None
    assert (retry.attempt, retry.failures, retry.delayed) == (2, 1, True)
    assert next_attempt(FUNCTION_ERROR, retries=1, attempt=2, failures=1) is None


def test_a_fault_of_the_engine_uses_up_none() -> None:
    retry = next_attempt(OUR_FAULT, retries=0, attempt=7)

    assert retry is not None
    assert (retry.attempt, retry.failures) == (8, 0)


@pytest.mark.parametrize("outcome", [Outcome(), Outcome(code=Code.CANCELLED)])
def test_a_success_and_a_cancelled_one_are_over(outcome: Outcome) -> None:
    assert next_attempt(outcome, retries=3) is None


def test_nothing_is_tried_again_beyond_its_age() -> None:
    assert next_attempt(OUR_FAULT, max_age=10.0, now=8.9) is not None
    assert next_attempt(OUR_FAULT, max_age=10.0, now=9.1) is None


def test_a_retry_keeps_its_priority_in_its_new_rank() -> None:
    retry = next_attempt(FUNCTION_ERROR, now=100.0, priority=2)

    assert retry is not None
    assert retry.rank == retry.due_at - 120.0


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_the_longest_within_the_jitter(attempt: int, jitter_sample: float) -> None:
    plain = min(60.0, 2.0 ** min(attempt - 1, 64))

    assert plain * 0.8 <= POLICY.delay(attempt, jitter_sample) <= plain * 1.2


def test_settings_rule_over_the_defaults() -> None:
    policy = RetryPolicy(default=Rules(retries=0, max_age=math.inf))

    assert policy.rules(None) == Rules(retries=0, max_age=math.inf)
    assert policy.rules(AsyncSettings()) == Rules(retries=1, max_age=3600)
