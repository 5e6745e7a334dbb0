"""Retry rules of a function, and the facts of a failed attempt that they decide by.

A rule matches errors of the function by type, code and beginning of the message. Errors of the engine match no rule.
The error itself may also decide: a handler raises an exception whose ``retry_after`` is the delay in seconds, or whose
``retryable`` is false. Rules are part of the asynchronous settings, so that a standby that takes over has them, too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from engine.model.limits import LONGEST_RETRY, words

MAX_RULES = 8  #: rules of a function
MAX_RETRIES = 8  #: largest number of retries in a rule

FirstDelay = Annotated[float, Meta(ge=0, le=LONGEST_RETRY), words("First delay (s)")]
LongestDelay = Annotated[float, Meta(ge=0, le=LONGEST_RETRY), words("Longest delay (s)")]


class RetryRule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rule for errors that meet all given conditions; without conditions, for all errors of the function."""

    #: Failed attempts that another follows; 0: no retry.
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES), words("Then")]
    #: Name of the exception's class, or of a class that it is derived from.
    error_type: Annotated[str, Meta(max_length=256), words("Error type", example="ConnectionError")] = ""
    code: Annotated[int, words("Error code")] = 0  #: of the attempt, such as 4010 for a timeout
    #: Beginning of the error's own message.
    message_prefix: Annotated[str, Meta(max_length=1024), words("Message begins with", example="bad input")] = ""
    base: FirstDelay | None = None  #: seconds before the first retry; absent, as the next three: the engine's setting
    factor: Annotated[float, Meta(ge=1, le=100), words("Factor")] | None = None
    longest: LongestDelay | None = None
    jitter: Annotated[float, Meta(ge=0, le=1), words("Jitter (0 to 1)")] | None = None  #: random share of the delay

    @property
    def conditions(self) -> str:
        """Conditions of the rule as text; empty if it matches all errors."""
        given = (("error_type", self.error_type), ("code", self.code), ("message_prefix", self.message_prefix))
        return ", ".join(f"{name} {value}" for name, value in given if value)

    def matches(self, code: int, error: FunctionError) -> bool:
        return (
            self.code in (0, code)
            and self.error_type in ("", error.kind, *error.classes)
            and error.message.startswith(self.message_prefix)
        )


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Decision after a failed attempt, kept with the attempt. Stored in the commit of its end."""

    retry: bool
    by: str  #: ``settings``; ``rule 1`` and so on; ``error``: its attributes; ``engine``: its error; ``node``; ``age``
    delay: float | None = None  #: seconds until the retry
    text: str  #: the same in words, with the number of the retry


class FunctionError(Struct, frozen=True, kw_only=True):
    """Error of a function, read from the error body that its instance has sent."""

    kind: str = field(default="", name="errorType")
    message: str = field(default="", name="errorMessage")
    classes: tuple[str, ...] = field(default=(), name="errorClasses")  #: if several: its own first, then its bases
    retry_after: float | None = field(default=None, name="retryAfter")  #: seconds
    retryable: bool = True
    trace: list[str] = field(default_factory=list, name="stackTrace")


def read_error(message: str, body: bytes) -> FunctionError:
    """Return the error that an instance has described in ``body``; without a body, as far as ``message`` tells it."""
    try:
        return msgspec.json.decode(body, type=FunctionError)
    except (msgspec.DecodeError, RecursionError):
        line = message.partition(", error: ")[2] or message
        kind, colon, text = line.partition(": ")
        return FunctionError(kind=kind, message=text if colon else line)
