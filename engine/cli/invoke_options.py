"""Options of ``functiond invoke --async``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from functiond.errors import BadArgument
from functiond.events import Event

from engine.cli.options import Flag
from engine.errors import UsageError
from engine.model.limits import LONGEST_DELAY


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AsyncOptions:
    """Options of an asynchronous invocation."""

    asynchronous: Annotated[Flag, Parameter(name="--async")] = False
    "Queue the invocation and print its request id. The invocation is on disk and will run."

    batch: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """With --async: file with an event as JSON in each line, or - for standard input. Options such as --delay hold for
    each event. With --idempotency-key, the key of an event is KEY-LINE."""

    wait: Flag = False
    "With --async: wait for the end of the invocation and print its result."

    timeout: float | None = None
    "With --wait: maximum wait in seconds."

    priority: Annotated[int | None, Parameter(validator=Number(gte=0, lte=9))] = None
    "With --async: 0 to 9; higher priorities run sooner."

    delay: Annotated[float | None, Parameter(validator=Number(gte=0, lte=LONGEST_DELAY))] = None
    "With --async: seconds to wait before the first run."

    idempotency_key: str | None = None
    "With --async: requests with the same key create only one invocation."

    ordering_key: str | None = None
    "With --async: invocations of the function with the same key run one at a time, in order."

    def check(self) -> None:
        """Raise UsageError if an option lacks the one that it needs."""
        if self.timeout is not None and not self.wait:
            raise UsageError("--timeout needs --wait")
        if not self.asynchronous and self != AsyncOptions():
            raise UsageError("--batch, --wait, --priority, --delay, --idempotency-key and --ordering-key need --async")
        if self.batch and self.wait:
            raise UsageError("--wait is for one event: omit it with --batch")

    @property
    def event(self) -> Event:
        """Event with these options, and without content."""
        return Event(key=self.idempotency_key, delay=self.delay, priority=self.priority, ordering_key=self.ordering_key)

    def headers(self) -> dict[str, str]:
        """Return the headers of the request. Raise UsageError if a key has characters that headers do not allow."""
        try:
            return self.event.headers
        except BadArgument as error:
            raise UsageError(f"an option cannot be sent: {error}") from None

    @property
    def max_wait(self) -> float | None:
        """Maximum wait for the end of the invocation in seconds, possibly infinite; None: do not wait."""
        if not self.wait:
            return None
        return inf if self.timeout is None else self.timeout
