"""Proof of durability: crash states, deaths and failing calls of engines, and a simulation. See bench/README.md."""

from bench.proof.scenario import SCENARIO

__all__ = ["SCENARIO"]
