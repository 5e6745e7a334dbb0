"""GPUs by their numbers and UUIDs, in a folder like that of NVIDIA's driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.isolation.gpus import find_gpus

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
