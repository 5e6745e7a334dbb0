"""Calls of functions in a pool, and what their outcomes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.executors.pool import Pool
from engine.logs.lines import decode
from engine.model import Function, Outcome
from tests.support.executing import Running, function, invocation


def value(outcome: Outcome) -> Any:
    """Return the result of a success: decoded JSON, or text that is none."""
    assert outcome.ok, outcome
    text = outcome.result.decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def lines(outcome: Outcome) -> list[tuple[str, str]]:
    """Return stream and text of each line of a log, without the error of the run."""
    return [(line.stream, line.text) for line in decode(outcome.log) if line.stream != "error"]


async def result(opened: Pool, handler: str, event: Any = None, **fields: Any) -> Any:
    """Run the handler once and return the value of its outcome."""
    return value(await opened.execute(function(handler, **fields), invocation(json.dumps(event or {}))))


async def begin(opened: Pool, folder: Path, asked: Function | None = None, **options: Any) -> tuple[Running, int]:
    """Return a call of the handler ``wait`` that runs, and the process in which it runs."""
    running = Running(opened, folder, asked, **options)
    return running, await running.pid()
