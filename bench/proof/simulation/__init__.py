"""Simulation of the engine: real components, simulated time, disk, executors, destinations and clients, from one seed.

The intake, scheduler, dispatcher, delivery worker, pruner, discarder, sources and timers are those of the engine, wired
and started as in production. Everything around them is simulated, so that a thousand hours with crashes take a minute,
and a seed that finds a violation finds it again.
"""

from __future__ import annotations

from bench.proof.simulation.run import Report, simulate

__all__ = ["Report", "simulate"]
