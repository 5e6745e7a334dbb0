"""Small file systems in memory, which tests fill."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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
