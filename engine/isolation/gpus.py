"""GPUs of NVIDIA: their device files, and the names by which CUDA finds them in a sandbox."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_DEVICES, _DRIVER = Path("/dev"), Path("/proc/driver/nvidia/gpus")
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")  #: device files that each user of a GPU needs
#: A GPU that no program has used yet has question marks in the place of its UUID.
_INFORMATION = re.compile(r"^GPU UUID:\s*(\S+)$.*^Device Minor:\s*(\d+)$", re.DOTALL | re.MULTILINE)


class Gpus(NamedTuple):
    """GPUs of an instance."""

    visible: str = ""  #: CUDA_VISIBLE_DEVICES; empty: the instance has no GPUs
    devices: tuple[str, ...] = ()  #: their device files, and those that all GPUs share


def find_gpus(ids: Sequence[str], driver: Path = _DRIVER, devices: Path = _DEVICES) -> Gpus:
    """Return the GPUs with these numbers or UUIDs. Raises OSError if one is not there. Blocks.

    The numbers are those of nvidia-smi and Ray, in the order of PCI addresses; device files have others. CUDA counts
    only the GPUs that it can open, so that UUIDs name them. Without NVIDIA's driver, all numbers are the same.
    """
    known, number = {}, 0
    for file in sorted(driver.glob("*/information")):
        found = _INFORMATION.search(file.read_text())
        if found and (devices / f"nvidia{found[2]}").exists():  # else it is that of another container
            if "?" not in found[1]:
                known[str(number)] = known[found[1]] = (found[1], found[2])
            number += 1
    if not driver.exists():
        known = {name: (name, name) for name in ids if name.isdecimal()}
    for name in ids:
        if name not in known:
            problem = "MIG is not supported" if name.startswith("MIG-") else "it is absent, or needs nvidia-smi once"
            raise OSError(errno.ENODEV, f"GPU {name} cannot be used: {problem}")
    files = [devices / name for name in (*(f"nvidia{known[name][1]}" for name in ids), *_SHARED)]
    return Gpus(",".join(known[name][0] for name in ids), tuple(str(file) for file in files if file.exists()))
