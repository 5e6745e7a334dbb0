"""Retry policy: decides whether and when a failed attempt is retried.

Each error of the function uses up one of the retries that its asynchronous settings or the defaults allow. A retry rule
of these settings, or the error itself, can decide otherwise (``retry_rules``). An error of the engine or a lack of
capacity uses up none: it is retried until the invocation exceeds its maximum age. After the loss of a node, the
invocation is due again at once, unless it has lost too many. Without a rule of its own, the delay
grows exponentially with the number of the attempt up to a maximum, and varies at random. No attempt starts after the
maximum age, which counts from the first due time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from msgspec import Struct

from engine.model.clock import Clock
from engine.model.invocation import AsyncSettings, Invocation, Mode, Outcome
from engine.model.limits import LONGEST_RETRY
from engine.model.retry_rules import Decision, RetryRule, read_error

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


class _Plan(NamedTuple):
    """Retries after an error of the function, the delay of the next, and the reasons for both."""

    retries: int
    delay: float
    by: str = "settings"
    reason: str = ""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    base: float = 1.0  #: seconds before the first retry
    factor: float = 2.0
    longest: float = 300.0
    jitter: float = 0.2  #: random share of the delay, added or subtracted
    max_losses: int = 10  #: nodes that one invocation may lose before it fails
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
    ) -> tuple[Invocation | None, Decision | None]:
        """Return the invocation with number and due time of its next attempt (None: it gets none), and the decision.

        There is no decision after a success or a cancelled attempt. ``expiry_now`` is the time by which its age counts,
        if that is not ``now``.
        """
        if outcome.ok or outcome.cancelled:
            return None, None
        failures = invocation.failures + (not outcome.engine_fault)
        if outcome.losses >= self.max_losses:
            text = f"no retry: its node was lost {outcome.losses} times; redrive the invocation to run it again"
            return None, Decision(retry=False, by="node", text=text)
        plan = self._plan(invocation, outcome, rules, jitter_sample)
        if not outcome.engine_fault and failures > plan.retries:
            return None, Decision(retry=False, by=plan.by, text=f"no retry: {_refusal(plan)}")
        if self.too_old(invocation, rules, (now if expiry_now is None else expiry_now) + plan.delay):
            return None, Decision(retry=False, by="age", text=f"no retry: older than {rules.max_age:g} s by then")
        due_at = now + plan.delay
        retry = msgspec.structs.replace(
            invocation,
            attempt=invocation.attempt + 1,
            failures=failures,
            due_at=due_at,
            rank=due_at - invocation.priority * priority_step,
            delayed=True,
        )
        counted = "" if outcome.engine_fault else f"{failures} of {plan.retries}"
        text = f"retry in {plan.delay:.3g} s: {', '.join(filter(None, (counted, plan.reason)))}"
        return retry, Decision(retry=True, by=plan.by, delay=round(plan.delay, 3), text=text)

    def _plan(self, invocation: Invocation, outcome: Outcome, rules: Rules, jitter_sample: float) -> _Plan:
        """Return retries and delay of an attempt. The error itself goes before rules, and rules before settings."""
        plan = _Plan(rules.retries, self.delay(invocation.attempt, jitter_sample))
        if outcome.losses:
            return _Plan(0, 0.0, "node", "the loss of a node uses up no retry")
        if outcome.engine_fault:
            return plan._replace(by="engine", reason="errors of the engine use up no retry")
        if not rules.retry_rules and not _speaks_of_retries(outcome.result):
            return plan
        error = read_error(outcome.message, outcome.result)
        if not error.retryable:
            return _Plan(0, 0.0, "error", "its error is not retryable")
        for number, rule in enumerate(rules.retry_rules, 1):
            if rule.matches(outcome.code, error):
                delay = self._of(rule).delay(invocation.failures + 1, jitter_sample)
                by, conditions = f"rule {number}", rule.conditions or "all errors"
                plan = _Plan(rule.max_retries, delay, by, f"{by} ({conditions})")
                break
        if error.retry_after is not None and invocation.failures < plan.retries:
            delay = min(max(error.retry_after, 0.0), LONGEST_RETRY)
            plan = _Plan(plan.retries, delay, "error", ", ".join(filter(None, (plan.reason, "as its error asks"))))
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


def _refusal(plan: _Plan) -> str:
    """Return why an error of the function gets no retry."""
    if plan.by == "error":
        return plan.reason
    spent = f"{plan.retries} of {plan.retries} used up" if plan.retries else "none is allowed"
    return ", ".join(filter(None, (spent, plan.reason)))


def _speaks_of_retries(body: bytes) -> bool:
    """Return whether an error body may say something about retries. Few do, and the others are not parsed."""
    return b'"retryAfter"' in body or b'"retryable"' in body
