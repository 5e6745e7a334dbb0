"""Retry policy: decides whether and when a failed attempt is retried.

Each error of the function uses up one of the retries that its asynchronous settings or the defaults allow. An error of
the engine or a lack of capacity uses up none: it is retried until the invocation exceeds its maximum age. In both cases
the delay grows exponentially with the number of the attempt up to a maximum, and varies at random. No attempt starts
after the maximum age, which counts from the first due time.
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from engine.model.clock import Clock
from engine.model.invocation import AsyncSettings, Invocation, Mode, Outcome

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


class RetryPolicy(Struct, frozen=True, kw_only=True):
    base: float = 1.0  #: seconds before the first retry
    factor: float = 2.0
    longest: float = 300.0
    jitter: float = 0.2  #: random share of the delay, added or subtracted
    default: Rules = Rules(retries=0, max_age=math.inf)  #: for functions without settings

    def rules(self, settings: AsyncSettings | None) -> Rules:
        if settings is None:
            return self.default
        return Rules(retries=settings.max_retries, max_age=settings.max_age)

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

    def next_attempt(
        self,
        invocation: Invocation,
        outcome: Outcome,
        rules: Rules,
        *,
        now: float,
        jitter_sample: float,
        priority_step: float,
        expiry_now: float | None = None,
    ) -> Invocation | None:
        """Return the invocation with the number and due time of its next attempt; None if it gets none.

        ``expiry_now`` is the time by which its age counts, if that is not ``now``.
        """
        if outcome.ok or outcome.cancelled:
            return None
        failures = invocation.failures + (not outcome.engine_fault)
        if failures > rules.retries:
            return None
        delay = self.delay(invocation.attempt, jitter_sample)
        due_at = now + delay
        if self.too_old(invocation, rules, (now if expiry_now is None else expiry_now) + delay):
            return None
        return msgspec.structs.replace(
            invocation,
            attempt=invocation.attempt + 1,
            failures=failures,
            due_at=due_at,
            rank=due_at - invocation.priority * priority_step,
            delayed=True,
        )
