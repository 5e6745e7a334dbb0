"""Small file system in a private mount namespace, which the kernel can turn read-only as it does after a disk error.

``mount -o remount,ro`` is no way to do this: the kernel refuses it while an engine has files open for writing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 64 << 20
_HOLD = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready && exec sleep infinity"]


class NoSmallDisk(Exception):
    """Machine that gives no small file system."""


class SmallDisk:
    """Ext4 file system in a file. Only programs behind ``prefix`` see it, at ``folder``."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self.prefix = folder, ["nsenter", "--target", str(pid), "--mount"]
        self._image = folder.with_suffix(".image")

    def create(self) -> None:
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        self._run("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        self._run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def unmount(self) -> None:
        self._run("umount", str(self.folder))

    def fail(self) -> None:
        """Let the file system find an error, so that the kernel makes it read-only at once."""
        device = Path(self._run("findmnt", "--noheadings", "--output", "SOURCE", str(self.folder)).strip()).name
        self._run("sh", "-c", f"echo test > /sys/fs/ext4/{device}/trigger_fs_error")

    def _run(self, *command: str) -> str:
        try:
            return subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True).stdout
        except FileNotFoundError as error:
            raise NoSmallDisk(str(error)) from None
        except subprocess.CalledProcessError as error:
            raise NoSmallDisk(f"{' '.join(command)}: {error.stderr.strip()}") from None


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Yield a mounted file system, which goes with its namespace. Raises NoSmallDisk if this machine gives none."""
    try:
        holder = subprocess.Popen(_HOLD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise NoSmallDisk(str(error)) from None
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline() != "ready\n":
                raise NoSmallDisk(holder.stderr.read())
            disk = SmallDisk(folder, holder.pid)
            disk.create()
            disk.mount()
            yield disk
        finally:
            holder.kill()
