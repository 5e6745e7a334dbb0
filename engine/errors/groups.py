"""Exceptions inside exception groups, which task groups raise, and causes of exceptions."""

from __future__ import annotations

from collections.abc import Iterator

MOST_CAUSES = 8  #: exceptions of a chain of causes that are looked at


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in groups inside it; any other exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def with_cause(text: str, error: BaseException) -> str:
    """Return the text of an error, with the system's error that caused it unless the text contains that.

    Client libraries raise errors such as ``All connection attempts failed``, whose cause alone says why.
    """
    cause, steps = error.__cause__, 0
    while cause is not None and steps < MOST_CAUSES:
        cause, steps = next(leaves(cause)), steps + 1
        if isinstance(cause, OSError) and cause.errno is not None:
            return text if str(cause) in text else f"{text}: {cause}"
        cause = cause.__cause__ or cause.__context__  # libraries suppress it, too
    return text
