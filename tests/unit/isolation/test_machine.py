"""Memory that the engine may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.app.parts import memory_budget
from engine.config.settings import Settings, default_slots
from engine.isolation.machine import usable_memory

MIB = 1 << 20
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable(folder: Path, groups: str, limits: dict[str, int | str]) -> int:
    """Return the usable memory for ``groups``, with the given contents of the files in ``limits``."""
    (folder / "own").write_text(groups)
    for name, limit in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{limit}\n")
    return usable_memory(folder, folder / "own")


def test_without_a_limit_the_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    limits: dict[str, int | str] = {"a/memory.max": "max", "memory/b/memory.limit_in_bytes": 0x7FFFFFFFFFFFF000}

    assert usable(tmp_path, "4:memory:/b\n0::/a\n", limits) == MACHINE
    assert usable_memory(tmp_path, tmp_path / "no such file") == MACHINE


@pytest.mark.parametrize("mount", ["", "unified/"])
def test_a_limit_of_version_2_counts_wherever_it_stands_above(tmp_path: Path, mount: str) -> None:
    limits: dict[str, int | str] = {f"{mount}a/memory.max": 5 * MIB, f"{mount}a/b/memory.max": "max"}

    assert usable(tmp_path, "0::/a/b/c\n", limits) == 5 * MIB


def test_the_smallest_limit_of_version_1_counts(tmp_path: Path) -> None:
    file = "memory.limit_in_bytes"
    limits: dict[str, int | str] = {f"memory/a/{file}": 7 * MIB, f"memory/a/b/{file}": 9 * MIB, "memory.max": 8 * MIB}

    assert usable(tmp_path, "9:cpu:/x\n4:cpuset,memory:/a/b\n", limits) == 7 * MIB


def test_a_container_that_sees_its_group_as_the_root_is_limited(tmp_path: Path) -> None:
    limits: dict[str, int | str] = {"memory/memory.limit_in_bytes": 6 * MIB}

    assert usable(tmp_path, "4:memory:/docker/0a1b2c\n", limits) == 6 * MIB


def test_three_quarters_of_the_memory_are_for_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.app.parts.usable_memory", lambda: 400 * MIB)

    assert memory_budget(Settings()) == 300


def test_slots_go_by_the_processors_that_the_engine_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)

    assert default_slots() == 32
