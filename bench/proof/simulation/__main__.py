"""Command line of the simulation: ``python -m bench.proof.simulation SEED HOURS`` repeats the simulation of a seed."""

from __future__ import annotations

import argparse
import sys
import time

from bench.proof.simulation import Report, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.proof.simulation", description=__doc__)
    parser.add_argument("seed", type=int, help="seed of the first simulation")
    parser.add_argument("hours", type=float, help="simulated hours")
    parser.add_argument("--seeds", type=int, default=1, help="number of simulations, each with the next seed")
    parser.add_argument("--stored", action="store_true", help="on the real storage, in a temporary directory")
    given = parser.parse_args()
    failed = 0
    for seed in range(given.seed, given.seed + given.seeds):
        began = time.perf_counter()
        report = simulate(seed, given.hours, stored=given.stored)
        _show(report, time.perf_counter() - began)
        failed += bool(report.violations)
    return 1 if failed else 0


def _show(report: Report, seconds: float) -> None:
    print(
        f"seed {report.seed}, {report.hours:g} h: {report.invocations} invocations, {report.crashes} crashes,"
        f" {len(report.violations)} violations, events {report.digest}, {seconds:.0f} s",
        flush=True,
    )
    for text in report.violations:
        print(f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
