"""Deterministic environment of a simulation: time, random numbers and threads of the engine's modules are replaced."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import anyio.to_thread
import structlog
from anyio._backends import _asyncio

from bench.proof.simulation.world import World

_CLOCKS = (time.monotonic, time.perf_counter, time.time)


@contextmanager
def deterministic(world: World) -> Iterator[None]:
    """Replace, in all modules of the engine and its plugins, what a seed does not decide."""
    random = world.fork()

    def new_random(seed: Any = None) -> Random:
        return Random(random.getrandbits(64) if seed is None else seed)

    replaced: list[tuple[Any, Callable[..., Any]]] = [(Random, new_random), *((clock, world.time) for clock in _CLOCKS)]
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in ("engine", "plugins") and module is not None:
                for attribute, value in list(vars(module).items()):
                    if value is time:
                        stack.enter_context(patch.object(module, attribute, _Time(world)))
                    for original, double in replaced:
                        if value is original:
                            stack.enter_context(patch.object(module, attribute, double))
        stack.enter_context(patch.object(anyio.to_thread, "run_sync", _run_in_loop))
        # Sets of scopes are otherwise in the order of their addresses.
        stack.enter_context(patch.object(_asyncio.CancelScope, "__hash__", lambda scope: hash(scope._host_task)))
        stack.enter_context(patch("engine.metrics.loop_lag.INTERVAL", 3600.0))
        stack.enter_context(_silent())
        stack.enter_context(_no_collections())
        yield


class _Time:
    """Module ``time`` with the clocks of a simulation."""

    def __init__(self, world: World) -> None:
        self.monotonic = self.perf_counter = self.time = world.time

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


async def _run_in_loop(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return function(*args)


@contextmanager
def _silent() -> Iterator[None]:
    """Drop all log lines of the engine."""
    config = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**config)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Collect garbage between processes only."""
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()  # for example an earlier simulation
    gc.freeze()  # objects from before the simulation need no check between processes
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
