"""States of invocations, runs and queues, as the witness of a simulation expects them."""

from __future__ import annotations

from engine.model import Invocation, Outcome, State


class Tracked:
    """State of one invocation, as the witness expects it."""

    __slots__ = (
        "acknowledged",
        "begun_crashes",
        "cancelling",
        "function_id",
        "invocation",
        "mono",
        "outcome",
        "runs",
        "start_crashes",
        "state",
        "tried",
    )

    def __init__(self, invocation: Invocation, mono: float) -> None:
        self.invocation, self.function_id, self.mono = invocation, invocation.function_id, mono
        self.state, self.acknowledged, self.cancelling, self.runs = State.WAIT, False, 0, 0
        self.begun_crashes = self.start_crashes = 0
        self.tried: tuple[int, int] | None = None  #: process and attempt of the last run
        self.outcome: Outcome | None = None  #: of the last run in this process


class Running:
    """Run of an attempt."""

    __slots__ = ("began", "function_id", "handler", "invocation")

    def __init__(self, invocation: Invocation, began: float) -> None:
        self.invocation, self.function_id, self.began = invocation, invocation.function_id, began
        self.handler = False  #: the handler has begun


class Waiting:
    """Place of an invocation in the order of its function."""

    __slots__ = ("rank_key", "since")

    def __init__(self, since: float, rank_key: tuple[float, int]) -> None:
        self.since, self.rank_key = since, rank_key
