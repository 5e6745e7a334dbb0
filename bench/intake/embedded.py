"""Engine in the process of the benchmark, for sources that a separate process cannot supply with events."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine import Plugin
from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.code.store import NO_CODE, CodeSource
from engine.config.settings import load_settings
from engine.model import Function
from engine.model.clock import Clock
from engine.model.urn import parse_urn
from engine.resources.triggers import TriggerDraft

SOURCE_CODE = b"def handler(event, context):\n    return event\n"


@asynccontextmanager
async def running(
    directory: Path, plugins: Iterable[Plugin] = (), *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[EngineParts]:
    """Run an engine that accepts events but executes nothing. ``__`` in the names of ``settings`` stands for a dot."""
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    loaded = load_settings(overrides={"storage.data_dir": str(directory), "grace": 0, **overrides})
    async with run_engine(loaded, plugins=plugins, clock=clock) as engine:
        engine.scheduler.hold("only intake is measured")
        yield engine


async def create(engine: EngineParts, kind: str, data: dict[str, Any]) -> None:
    """Create a function with one trigger of the given kind and ``event_data``."""
    function = Function(
        function_id=0,
        project="default",
        package="default",
        name="held",
        runtime="Python3.10",
        handler="index.handler",
        timeout=3,
        memory_size=128,
        code=NO_CODE,
    )
    await engine.catalog.create(function, CodeSource(kind="inline", file=base64.b64encode(SOURCE_CODE).decode()))
    urn = parse_urn("held", region=engine.settings.http.region, project="default")
    await engine.resources.triggers.create(urn, TriggerDraft(kind=kind, data=data))
