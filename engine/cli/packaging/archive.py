"""Zip packages, and their limits.

On the same machine, equal files give a package of equal bytes, so the engine stores the code of an unchanged function
a single time.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from engine.cli.client import UsageError
from engine.code.store import PACKAGE_LIMIT
from engine.code.unpacking import Limits

LIMITS = Limits()  #: of the engine, for the files of a package
_MOMENT = (1980, 1, 1, 0, 0, 0)  #: earliest time that a zip file can contain
_SHOWN = 3  #: folders that an error names


class Totals:
    """Number and sizes of the files of a package, which are checked while files are added."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._count = self._size = 0
        self._folders: Counter[str] = Counter()

    def add(self, name: str, size: int) -> None:
        """Count a file. Raises UsageError if the package exceeds a limit of the engine."""
        parts = name.split("/")
        self._folders["/".join(parts[: 2 if parts[0] == "node_modules" else 1])] += size
        self._count, self._size = self._count + 1, self._size + size
        if self._count > LIMITS.entries:
            raise self.exceeded(f"more than {LIMITS.entries:,} files")
        if self._size > LIMITS.unpacked:
            raise self.exceeded(f"files of more than {_mib(LIMITS.unpacked)}")

    def exceeded(self, limit: str) -> UsageError:
        """Return the error for a limit, with the largest files and folders."""
        largest = ", ".join(f"{name} ({_mib(size)})" for name, size in self._folders.most_common(_SHOWN))
        advice = "name what the function does not need in .functiondignore"
        return UsageError(f"the package of {self._shown} has {limit}, the largest being {largest}: {advice}")


def zipped(files: Mapping[str, Path], shown: str) -> bytes:
    """Return files, by their names in the package, as a zip package.

    Raises UsageError if it exceeds a limit of the engine; OSError if a file cannot be read.
    """
    packed, totals = io.BytesIO(), Totals(shown)
    for name, file in files.items():
        totals.add(name, file.stat().st_size)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if os.access(file, os.X_OK) else 0o100644) << 16
            archive.writestr(entry, file.read_bytes())
            if packed.tell() > PACKAGE_LIMIT:
                raise totals.exceeded(f"more than {_mib(PACKAGE_LIMIT)}")
    return packed.getvalue()


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
