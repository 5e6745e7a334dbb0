"""Engines inside Python programs, which import ``Engine`` from ``functiond``."""

from engine.embedded.engine import Engine
from engine.embedded.running import AsyncRunningEngine, RunningEngine

__all__ = ["AsyncRunningEngine", "Engine", "RunningEngine"]
