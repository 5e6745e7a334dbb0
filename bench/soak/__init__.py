"""Soak: a real engine under mixed load for minutes, while its children are killed. Nothing may be left behind.

Memory and descriptors of the engine are measured after a first span of load and after the last, both times when all
work has ended and no instance is left. Every accepted request must have ended.
"""

from __future__ import annotations

from bench.soak.scenario import SCENARIO

__all__ = ["SCENARIO"]
