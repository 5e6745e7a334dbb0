"""Memory, slots and GPUs of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.app.parts import memory_budget
from engine.config.settings import Settings, default_slots
from engine.isolation.gpus import find_gpus
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


INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 10
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.99.00.01
Bus Location: \t {address}
Device Minor: \t {minor}
GPU Excluded:\t No
"""
LAST = "GPU-9221d5d1-b60b-a624-bf14-0a1819cfda3b"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """Return folders in place of the driver's and /dev. The device files are in the reverse order of the addresses.

    That of the first card is missing, as in a container that has only the others.
    """
    driver, devices = tmp_path / "gpus", tmp_path / "dev"
    devices.mkdir()
    cards = [
        ("0000:00:01.0", "GPU-other", 7),
        ("0000:c1:00.0", LAST, 0),
        ("0000:01:00.0", "GPU-1a", 2),
        ("0000:41:00.0", "GPU-????????-????", 1),
    ]
    for address, uuid, minor in cards:
        (driver / address).mkdir(parents=True)
        (driver / address / "information").write_text(INFORMATION.format(uuid=uuid, address=address, minor=minor))
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (devices / name).touch()
    return driver, devices


def test_gpus_are_found_by_numbers_and_uuids(machine: tuple[Path, Path]) -> None:
    first, last = find_gpus(["0"], *machine), find_gpus(["2"], *machine)
    both = find_gpus([LAST, "0"], *machine)

    assert (first.visible, last.visible, both.visible) == ("GPU-1a", LAST, f"{LAST},GPU-1a")
    assert [Path(file).name for file in first.devices] == ["nvidia2", "nvidiactl", "nvidia-uvm"]
    assert [Path(file).name for file in both.devices] == ["nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm"]
    assert Path(last.devices[0]) == machine[1] / "nvidia0"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("3", "absent"),
        ("GPU-2b", "absent"),
        ("1", "needs nvidia-smi"),
        ("MIG-9221d5d1", "MIG is not supported"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused(machine: tuple[Path, Path], name: str, problem: str) -> None:
    with pytest.raises(OSError, match=rf"GPU {name} cannot be used: .*{problem}"):
        find_gpus(["0", name], *machine)


def test_without_the_driver_a_gpu_has_its_number(machine: tuple[Path, Path], tmp_path: Path) -> None:
    devices = machine[1]
    gpus = find_gpus(["1", "7"], tmp_path / "nowhere", devices)

    assert gpus.visible == "1,7"
    assert gpus.devices == tuple(str(devices / name) for name in ("nvidia1", "nvidiactl", "nvidia-uvm"))
    with pytest.raises(OSError, match="MIG"):
        find_gpus(["MIG-9221d5d1"], tmp_path / "nowhere", devices)
