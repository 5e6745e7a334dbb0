"""Builders of model objects for tests: ``waiting("a", priority=9)``."""

from __future__ import annotations

from itertools import count
from typing import Any

from engine.code.store import NO_CODE
from engine.model import Function, Invocation, Mode
from engine.scheduling.function_queue import Entry

_keys = count(1)


def waiting(function_id: int = 1, *, key: int | None = None, due_at: float = 0.0, **fields: Any) -> Invocation:
    """Return a waiting invocation; its rank is its due time unless given."""
    key = next(_keys) if key is None else key
    fields.setdefault("rank", due_at)
    return Invocation(key=key, request_id=f"request-{key}", function_id=function_id, due_at=due_at, **fields)


def entry(function_id: int = 1, **fields: Any) -> Entry:
    return Entry(waiting(function_id, **fields))


def call(function_id: int = 1, **fields: Any) -> Entry:
    """Return a synchronous invocation."""
    return Entry(waiting(function_id, mode=Mode.SYNC, **fields))


def a_function(function_id: int = 1, **fields: Any) -> Function:
    """Return a function; by default ``hello``, in Python, without code."""
    values: dict[str, Any] = {
        "project": "project",
        "package": "default",
        "name": "hello",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 3,
        "memory_size": 128,
        "code": NO_CODE,
    }
    return Function(function_id=function_id, **(values | fields))
