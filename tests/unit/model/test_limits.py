"""CPU by memory size, as FunctionGraph's documentation lists it."""

from __future__ import annotations

from engine.model.limits import MEMORY_SIZES, cpu_of


def test_each_memory_size_has_the_documented_cpu() -> None:
    documented = (300, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2200, 2600, 3000, 3400, 6600, 8200)

    assert tuple(map(cpu_of, MEMORY_SIZES)) == documented
