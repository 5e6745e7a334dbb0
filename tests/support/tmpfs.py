"""Small file systems in memory, which tests fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def fill(folder: Path, *, leave: int = 0) -> None:
    """Fill the disk of a folder by a file ``filler``, except for ``leave`` bytes."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > leave:
            file.write(bytes(4096))


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Callable[[str], object]]:
    """Mount a file system of ``size`` bytes, and yield a function that mounts it again with other options."""
    folder.mkdir(exist_ok=True)

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "functiond-test", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if mount(f"size={size}"):
        pytest.skip("mounting a small file system needs root")
    try:
        yield mount
    finally:
        # Lazily, as a child that was just killed may still have its working directory here.
        subprocess.run(["umount", "--lazy", folder], check=True)
