"""Whether a failed attempt is tried again, and when: pure policy.

A function error uses up one of the retries that the asynchronous settings grant. A fault of the engine or of its
capacity uses up none: it is tried until the invocation is too old. Both wait exponentially longer, with jitter, and
nothing is tried again beyond its maximum age, which counts from the first due time.
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from engine.model.invocation import AsyncSettings, Invocation, Outcome

#: An invocation that was running at this many engine deaths runs alone; one more and it is failed.
MAX_CRASHES = 3
#: Attempts of an invocation that its history keeps, the newest: of those that the engine fails there may be any number.
HISTORY = 100


class Rules(Struct, frozen=True, kw_only=True):
    """What a function's asynchronous settings, or the engine's defaults, grant."""

    retries: int
    max_age: float  #: seconds; infinite: no limit


class RetryPolicy(Struct, frozen=True, kw_only=True):
    base: float = 1.0  #: seconds before the first retry
    factor: float = 2.0
    longest: float = 300.0
    jitter: float = 0.2  #: share of the wait that is random, to both sides
    default: Rules = Rules(retries=0, max_age=math.inf)  #: for functions without settings

    def rules(self, settings: AsyncSettings | None) -> Rules:
        if settings is None:
            return self.default
        return Rules(retries=settings.max_retries, max_age=settings.max_age)

    def delay(self, attempt: int, jitter_sample: float) -> float:
        """Seconds to wait after this attempt (from 1); ``jitter_sample`` is random in [0, 1)."""
        wait = min(self.longest, self.base * self.factor ** min(attempt - 1, 64))
        return wait * (1 + self.jitter * (2 * jitter_sample - 1))

    def too_old(self, invocation: Invocation, rules: Rules, now: float) -> bool:
        return now > invocation.first_due_at + rules.max_age

    def next_attempt(
        self,
        invocation: Invocation,
        outcome: Outcome,
        rules: Rules,
        *,
        now: float,
        jitter_sample: float,
        priority_step: float,
    ) -> Invocation | None:
        """Return the invocation as it waits from now on, or None if this was the last attempt."""
        if outcome.ok or outcome.cancelled:
            return None
        failures = invocation.failures + (not outcome.engine_fault)
        if failures > rules.retries:
            return None
        due_at = now + self.delay(invocation.attempt, jitter_sample)
        if self.too_old(invocation, rules, due_at):
            return None
        return msgspec.structs.replace(
            invocation,
            attempt=invocation.attempt + 1,
            failures=failures,
            due_at=due_at,
            rank=due_at - invocation.priority * priority_step,
            delayed=True,
        )
