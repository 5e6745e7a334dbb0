"""Rules of the documents about retries and about the age of invocations, by which the witness judges."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.proof.simulation.world import AGE, WRITING, Kind, World
from engine.model import Code
from engine.protocols import Settlement
from tests.doubles.rows import Row

#: Retry delays of the engine's settings: first, factor, longest, share that is random.
BASE, FACTOR, LONGEST, JITTER = 1.0, 2.0, 300.0, 0.2


def retry_problems(kind: Kind, settlement: Settlement) -> Iterator[str]:
    """Yield what is wrong with the retry after an attempt that has run, or with its lack."""
    before, outcome, after = settlement.invocation, settlement.outcome, settlement.retry
    fault = outcome.code in (Code.ENGINE, Code.OVERLOAD)
    failures = before.failures + (not fault)
    allowed = kind.settings.max_retries if kind.settings else 0
    delay, jitter = min(LONGEST, BASE * FACTOR ** min(before.attempt - 1, 64)), JITTER
    rules = kind.settings.retry_rules if kind.settings and not fault else ()
    for rule in [rule for rule in rules if rule.code in (0, outcome.code)][:1]:
        allowed, jitter = rule.max_retries, rule.jitter or 0.0
        delay = min(rule.longest or 0.0, (rule.base or 0.0) * FACTOR**before.failures)
    shortest, longest = delay * (1 - jitter), delay * (1 + jitter)
    latest = before.first_due_at + (math.inf if kind.settings is None else kind.settings.max_age)
    if outcome.ok or (failures > allowed and not fault) or outcome.ended_at + shortest > latest:
        if after is not None:
            yield f"is retried after {outcome.code} and {failures} failures"
    elif after is None:
        if outcome.ended_at + longest <= latest:
            yield f"is not retried after {failures} failures of {allowed}"
    elif not shortest - 1e-3 <= after.due_at - outcome.ended_at <= longest + 1e-3:
        yield f"is retried after {after.due_at - outcome.ended_at:.3f} s, not {delay} s"


def is_too_young(world: World, row: Row, since: float, age: float = AGE) -> bool:
    """Return whether an invocation, last written after ``since``, has ended less than ``age`` seconds ago.

    The end of one that has ended while the clock was ahead is corrected, and tells nothing.
    """
    ended_at = row.ended_at or math.inf
    if world.expired(ended_at + age, since - WRITING):
        return False
    return not any(at > since and at + offset < ended_at for at, offset in world.steps)
