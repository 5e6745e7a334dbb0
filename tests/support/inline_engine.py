"""Whole engine whose instances are handlers in this process."""

from __future__ import annotations

from typing import Any

import pytest

from engine.app.parts import EngineParts
from engine.executors.pool import Pool
from engine.model import Request
from engine.model.urn import FunctionUrn, parse_urn
from tests.doubles import InlineExecutor

REGION, PROJECT = "local-1", "p"
#: Settings for an engine that starts no processes and retries at once.
SETTINGS: dict[str, Any] = {"retry__base": 0.001, "grace": 5.0, "executor__isolation": "process"}


def urn_of(name: str) -> FunctionUrn:
    return parse_urn(name, region=REGION, project=PROJECT)


def run_inline(patch: pytest.MonkeyPatch, handlers: dict[str, Any]) -> None:
    """Let these handlers, by the names of their functions, run in place of the instances of all pools."""
    inline = InlineExecutor(handlers)
    patch.setattr(Pool, "execute", lambda _, *arguments: inline.execute(*arguments))
    patch.setattr(Pool, "cancel", lambda _, key: inline.cancel(key))


async def accept(engine: EngineParts, name: str, **fields: Any) -> int:
    """Accept a request for a function, and return its key."""
    request_id = await engine.intake.accept(Request(function=urn_of(name), payload=b'{"n": 1}', **fields))
    key = engine.storage.identity.key_of(request_id)
    assert key is not None
    return key
