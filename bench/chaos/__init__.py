"""Chaos: nothing is lost and nothing runs twice at a time while nodes, the engine and the network fail."""

from __future__ import annotations

from bench.chaos.scenario import SCENARIO

__all__ = ["SCENARIO"]
