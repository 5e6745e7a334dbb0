from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode
from msgspec.structs import replace

from engine.model import AsyncSettings, Code, Invocation, Outcome
from engine.model.limits import LONGEST_DELAY, LONGEST_RETRY
from engine.model.retry import HISTORY, RetryPolicy, Rules
from engine.model.retry_rules import MAX_RETRIES, Decision, RetryRule
from tests.support.builders import waiting

POLICY = RetryPolicy(base=1.0, factor=2.0, longest=60.0, jitter=0.2)
FUNCTION_ERROR = Outcome(code=Code.USER_EXCEPTION)
OUR_FAULT = Outcome(code=Code.ENGINE)


def next_attempt(
    outcome: Outcome, *, retries: int = 1, max_age: float = math.inf, now: float = 0.0, **fields: int
) -> Invocation | None:
    rules = Rules(retries=retries, max_age=max_age)
    return decided(outcome, rules, now=now, **fields)[0]


def decided(
    outcome: Outcome, rules: Rules, now: float = 0.0, **fields: int
) -> tuple[Invocation | None, Decision | None]:
    return POLICY.decide(waiting(**fields), outcome, rules, now=now, jitter_sample=0.5, priority_step=60.0)


def test_a_function_error_uses_up_a_retry() -> None:
    retry = next_attempt(FUNCTION_ERROR, retries=1)

    assert retry is not None
    assert (retry.attempt, retry.failures, retry.delayed) == (2, 1, True)
    assert next_attempt(FUNCTION_ERROR, retries=1, attempt=2, failures=1) is None


def test_a_fault_of_the_engine_uses_up_none() -> None:
    retry = next_attempt(OUR_FAULT, retries=0, attempt=7)

    assert retry is not None
    assert (retry.attempt, retry.failures) == (8, 0)


def test_the_loss_of_a_node_uses_up_nothing_and_the_invocation_is_due_at_once() -> None:
    retry, decision = decided(replace(OUR_FAULT, losses=9), Rules(retries=0, max_age=10.0), now=5.0)

    assert retry is not None
    assert decision is not None
    assert (retry.attempt, retry.failures, retry.due_at, decision.by) == (2, 0, 5.0, "node")


def test_the_tenth_loss_of_a_node_ends_an_invocation() -> None:
    retry, decision = decided(replace(OUR_FAULT, losses=10), Rules(retries=3, max_age=10.0))

    assert retry is None
    assert decision is not None
    assert decision.text == "no retry: its node was lost 10 times; redrive the invocation to run it again"


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


def failed(kind: str, text: str, code: int = Code.USER_EXCEPTION, **said: object) -> Outcome:
    body = {"errorMessage": text, "errorType": kind, "stackTrace": [], **said}
    return Outcome(code=code, message=f"function invocation exception, error: {kind}: {text}", result=encode(body))


RULES = Rules(
    retries=1,
    max_age=3600.0,
    retry_rules=(
        RetryRule(error_type="Throttled", max_retries=8, base=5.0, factor=3.0, longest=100.0, jitter=0.0),
        RetryRule(code=Code.TIMEOUT, max_retries=0),
        RetryRule(message_prefix="bad ", error_type="ValueError", max_retries=0),
    ),
)


BROKEN = b'{"errorType":"\xff","retryable":false}'  #: error body that is not UTF-8
THROTTLED, BAD = "rule 1 (error_type Throttled)", "rule 3 (error_type ValueError, message_prefix bad )"


@pytest.mark.parametrize(
    ("outcome", "failures", "text"),
    [
        (failed("Throttled", "slow down"), 0, f"retry in 5 s: 1 of 8, {THROTTLED}"),
        (failed("Throttled", "slow down"), 2, f"retry in 45 s: 3 of 8, {THROTTLED}"),
        (failed("Throttled", "slow down"), 7, f"retry in 100 s: 8 of 8, {THROTTLED}"),
        (failed("Throttled", "slow down"), 8, f"no retry: 8 of 8 used up, {THROTTLED}"),
        (failed("TIMEOUT", "too long", Code.TIMEOUT), 0, "no retry: none is allowed, rule 2 (code 4010)"),
        (failed("ValueError", "bad input"), 0, f"no retry: none is allowed, {BAD}"),
        (failed("ValueError", "a bad input"), 0, "retry in 1 s: 1 of 1"),
        (failed("KeyError", "bad key"), 0, "retry in 1 s: 1 of 1"),
        (failed("KeyError", "bad key"), 1, "no retry: 1 of 1 used up"),
        (failed("KeyError", "x", retryable=False), 0, "no retry: its error is not retryable"),
        (failed("Throttled", "x", retryable=False), 0, "no retry: its error is not retryable"),
        (failed("KeyError", "x", retryAfter=30), 0, "retry in 30 s: 1 of 1, as its error asks"),
        (failed("Throttled", "x", retryAfter=0.5), 4, f"retry in 0.5 s: 5 of 8, {THROTTLED}, as its error asks"),
        (failed("KeyError", "x", retryAfter=30), 1, "no retry: 1 of 1 used up"),
        (failed("KeyError", "x", retryAfter=1e9), 0, "no retry: older than 3600 s by then"),
        (OUR_FAULT, 8, "retry in 1 s: errors of the engine use up no retry"),
        (replace(FUNCTION_ERROR, message="…, error: Throttled: x"), 0, f"retry in 5 s: 1 of 8, {THROTTLED}"),
        (replace(FUNCTION_ERROR, message="Throttled", result=BROKEN), 0, f"retry in 5 s: 1 of 8, {THROTTLED}"),
        (replace(FUNCTION_ERROR, message="Throttled", result=b"[" * 9999), 0, f"retry in 5 s: 1 of 8, {THROTTLED}"),
        (Outcome(), 0, ""),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_an_error_decides(outcome: Outcome, failures: int, text: str) -> None:
    retry, decision = decided(outcome, RULES, failures=failures)

    assert (decision.text if decision else "") == text
    assert (retry is not None) == text.startswith("retry") == (decision is not None and decision.retry)


@pytest.mark.parametrize(
    ("outcome", "failures", "decision"),
    [
        (failed("Throttled", "x"), 1, ("rule 1", 15.0)),
        (failed("Throttled", "x"), 8, ("rule 1", None)),
        (failed("KeyError", "x"), 0, ("settings", 1.0)),
        (failed("KeyError", "x"), 1, ("settings", None)),
        (failed("KeyError", "x", retryAfter=30), 0, ("error", 30.0)),
        (failed("KeyError", "x", retryAfter=30), 1, ("settings", None)),
        (failed("KeyError", "x", retryable=False), 0, ("error", None)),
        (failed("KeyError", "x", retryAfter=3600.5), 0, ("age", None)),
        (OUR_FAULT, 9, ("engine", 1.0)),
    ],
)
def test_a_decision_tells_by_what_and_for_how_long(
    outcome: Outcome, failures: int, decision: tuple[str, float | None]
) -> None:
    _, taken = decided(outcome, RULES, failures=failures)

    assert taken is not None
    assert (taken.by, taken.delay) == decision


def test_an_error_speaks_of_its_retry_without_rules_too() -> None:
    rules = Rules(retries=3, max_age=math.inf)

    assert decided(failed("E", "x", retryable=False), rules)[0] is None
    assert due(failed("E", "x", retryAfter=12), rules) == 12.0
    assert due(failed("E", "x"), rules) == 1.0


def due(outcome: Outcome, rules: Rules) -> float:
    retry, _ = decided(outcome, rules)
    assert retry is not None
    return retry.due_at


def test_the_longest_wait_that_an_error_may_ask_for_is_that_of_a_retry() -> None:
    asked = due(failed("E", "x", retryAfter=1e9), Rules(retries=3, max_age=math.inf))

    assert asked == LONGEST_RETRY


KINDS, TEXTS, CODES = st.sampled_from(["A", "B"]), st.sampled_from(["", "x", "xy", "z"]), st.sampled_from([4002, 4010])
SECONDS = st.none() | st.floats(0, LONGEST_RETRY)
ANY_RULE = st.builds(
    RetryRule,
    max_retries=st.integers(0, MAX_RETRIES),
    error_type=st.just("") | KINDS,
    code=st.just(0) | CODES,
    message_prefix=TEXTS,
    base=SECONDS,
    factor=st.none() | st.floats(1, 100),
    longest=SECONDS,
    jitter=st.none() | st.floats(0, 1),
)
ANY_RULES = st.builds(
    Rules, retries=st.integers(0, 3), max_age=st.floats(1, 86_400), retry_rules=st.lists(ANY_RULE).map(tuple)
)
SAID: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "retryAfter": st.floats(0, 1e9),
        "retryable": st.just(False),
        "errorClasses": st.lists(KINDS, min_size=2),
    },
)


@given(ANY_RULES, KINDS, TEXTS, CODES, SAID, st.integers(0, HISTORY), st.integers(0, 9))
def test_no_rule_and_no_error_exceeds_the_limits(
    rules: Rules, kind: str, text: str, code: int, said: dict[str, Any], faults: int, failures: int
) -> None:
    outcome = failed(kind, text, code, **said)
    attempt = faults + failures + 1
    retry, decision = decided(outcome, rules, failures=failures, attempt=attempt)

    first = next(
        (rule for rule in rules.retry_rules if meets(rule, [kind, *said.get("errorClasses", [])], text, code)), None
    )
    allowed = rules.retries if first is None else first.max_retries
    assert decision is not None
    assert decision.retry is (retry is not None)
    if "retryable" in said or failures >= allowed:
        assert retry is None
    elif retry is None:
        assert decision.by == "age"
    if retry is not None:
        assert (retry.attempt, retry.failures, retry.delayed) == (attempt + 1, failures + 1, True)
        assert 0 <= retry.due_at <= min(rules.max_age, LONGEST_DELAY)
        assert retry.due_at == pytest.approx(decision.delay, abs=0.001)
        if "retryAfter" in said:
            assert retry.due_at == min(said["retryAfter"], LONGEST_RETRY)


def meets(rule: RetryRule, kinds: list[str], text: str, code: int) -> bool:
    met = [not rule.error_type or rule.error_type in kinds, not rule.code or rule.code == code]
    return all(met) and text[: len(rule.message_prefix)] == rule.message_prefix


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_the_longest_within_the_jitter(attempt: int, jitter_sample: float) -> None:
    plain = min(60.0, 2.0 ** min(attempt - 1, 64))

    assert plain * 0.8 <= POLICY.delay(attempt, jitter_sample) <= plain * 1.2


def test_settings_rule_over_the_defaults() -> None:
    policy = RetryPolicy(default=Rules(retries=0, max_age=math.inf))

    assert policy.rules(None) == Rules(retries=0, max_age=math.inf)
    assert policy.rules(AsyncSettings()) == Rules(retries=1, max_age=3600)
