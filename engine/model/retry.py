"""Retry policy: decides whether and when a failed attempt is retried.

Each error of the function uses up one of the retries that its asynchronous settings or the defaults allow. A retry rule
of these settings, or the error itself, can decide otherwise (``retry_rules``). An error of the engine or a lack of
capacity uses up none: it is retried until the invocation exceeds its maximum age. Without a rule of its own, the delay
grows exponentially with the number of the attempt up to a maximum, and varies at random. No attempt starts after the
maximum age, which counts from the first due time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from msgspec import Struct

from engine.model.clock import Clock
from engine.model.delays import LONGEST_RETRY
from engine.model.invocation import AsyncSettings, Invocation, Mode, Outcome
from engine.model.retry_rules import RetryRule, read_error

#: An invocation runs alone after this many engine crashes that met it. One more crash while its handler runs makes it
#: fail.
MAX_CRASHES = 3
#: After this many crashes before its handler began, one more makes an invocation fail. Most such crashes are not its
#: fault, because it only waited for an instance.
MAX_START_CRASHES = 9
#: Newest attempts that the history of an invocation keeps: engine errors can cause any number of attempts.
HISTORY = 100


class Rules(Struct, frozen=True, kw_only=True):
    """Allowed retries and maximum age of a function's invocations, from its asynchronous settings or the defaults."""

    retries: int
    max_age: float  #: seconds; infinite: no limit
    retry_rules: tuple[RetryRule, ...] = ()  #: the first that matches an error replaces ``retries`` for it


class Decision(NamedTuple):
    """Next attempt of an invocation, or None, and the decision in words. Both are stored in the commit of its end."""

    retry: Invocation | None
    text: str


NO_DECISION = Decision(None, "")


class _Plan(NamedTuple):
    """Retries after an error of the function, the delay of the next, and the reasons for both."""

    retries: int  #: -1: the error is not retryable
    delay: float
    reasons: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        if self.retries < 0:
            return "its error is not retryable"
        spent = f"{self.retries} of {self.retries} used up" if self.retries else "none is allowed"
        return ", ".join((spent, *self.reasons))


class RetryPolicy(Struct, frozen=True, kw_only=True):
    base: float = 1.0  #: seconds before the first retry
    factor: float = 2.0
    longest: float = 300.0
    jitter: float = 0.2  #: random share of the delay, added or subtracted
    default: Rules = Rules(retries=0, max_age=math.inf)  #: for functions without settings

    def rules(self, settings: AsyncSettings | None) -> Rules:
        if settings is None:
            return self.default
        return Rules(retries=settings.max_retries, max_age=settings.max_age, retry_rules=settings.retry_rules)

    def delay(self, attempt: int, jitter_sample: float) -> float:
        """Return the seconds to wait after this attempt, counted from 1.

        ``jitter_sample`` is a random number from [0, 1).
        """
        wait = min(self.longest, self.base * self.factor ** min(attempt - 1, 64))
        return wait * (1 + self.jitter * (2 * jitter_sample - 1))

    def too_old(self, invocation: Invocation, rules: Rules, now: float) -> bool:
        return now > invocation.first_due_at + rules.max_age

    def in_doubt(self, invocation: Invocation, settings: AsyncSettings | None, clock: Clock) -> bool:
        """Return whether an asynchronous invocation is too old by the clock, but not by the time that is trusted."""
        rules = self.rules(settings)
        aged = invocation.mode is Mode.ASYNC and self.too_old(invocation, rules, clock.now())
        return aged and not self.too_old(invocation, rules, clock.expiry.now())

    def decide(
        self,
        invocation: Invocation,
        outcome: Outcome,
        rules: Rules,
        *,
        now: float,
        jitter_sample: float,
        priority_step: float,
        expiry_now: float | None = None,
    ) -> Decision:
        """Decide whether an attempt gets another, and when.

        ``expiry_now`` is the time by which its age counts, if that is not ``now``.
        """
        if outcome.ok or outcome.cancelled:
            return NO_DECISION
        failures = invocation.failures + (not outcome.engine_fault)
        if outcome.engine_fault:
            delay, reason = self.delay(invocation.attempt, jitter_sample), "engine errors use up no retry"
        else:
            plan = self._plan(invocation, outcome, rules, jitter_sample)
            if failures > plan.retries:
                return Decision(None, f"no retry: {plan.refusal}")
            delay, reason = plan.delay, ", ".join((f"{failures} of {plan.retries}", *plan.reasons))
        if self.too_old(invocation, rules, (now if expiry_now is None else expiry_now) + delay):
            return Decision(None, f"no retry: older than {rules.max_age:g} s by then")
        due_at = now + delay
        retry = msgspec.structs.replace(
            invocation,
            attempt=invocation.attempt + 1,
            failures=failures,
            due_at=due_at,
            rank=due_at - invocation.priority * priority_step,
            delayed=True,
        )
        return Decision(retry, f"retry in {delay:.3g} s: {reason}")

    def _plan(self, invocation: Invocation, outcome: Outcome, rules: Rules, jitter_sample: float) -> _Plan:
        """Return retries and delay after an error of the function, by its rules and by the error itself."""
        if not rules.retry_rules and not _speaks_of_retries(outcome.result):
            return _Plan(rules.retries, self.delay(invocation.attempt, jitter_sample))
        error = read_error(outcome.message, outcome.result)
        if not error.retryable:
            return _Plan(-1, 0.0)
        plan = _Plan(rules.retries, self.delay(invocation.attempt, jitter_sample))
        for number, rule in enumerate(rules.retry_rules, 1):
            if rule.matches(outcome.code, error):
                delay = self._of(rule).delay(invocation.failures + 1, jitter_sample)
                plan = _Plan(rule.retries, delay, (f"rule {number} ({rule.conditions or 'all errors'})",))
                break
        if error.retry_after is not None:
            delay = min(max(error.retry_after, 0.0), LONGEST_RETRY)
            plan = _Plan(plan.retries, delay, (*plan.reasons, "as its error asks"))
        return plan

    def _of(self, rule: RetryRule) -> RetryPolicy:
        """Return this policy with the delays of a rule."""
        base = self.base if rule.base is None else rule.base
        return RetryPolicy(
            base=base,
            factor=self.factor if rule.factor is None else rule.factor,
            longest=max(self.longest, base) if rule.longest is None else rule.longest,
            jitter=self.jitter if rule.jitter is None else rule.jitter,
        )


def _speaks_of_retries(body: bytes) -> bool:
    """Return whether an error body may say something about retries. Few do, and the others are not parsed."""
    return b'"retryAfter"' in body or b'"retryable"' in body
