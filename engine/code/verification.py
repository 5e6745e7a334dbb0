"""Check of stored code packages before their first use, so that bytes that changed on disk are never loaded silently.

A package as it was received is checked by the hash in its name, and each unpacked file by the package. A file that
differs is unpacked again. Files that the package does not have are not checked. Compiled code in ``__pycache__`` is
removed, because nothing tells that it changed.
"""

from __future__ import annotations

import errno
import shutil
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from engine.code.package_files import digest_of, inline_source
from engine.code.unpacking import Limits, replace_file, unpack_changed
from engine.errors import InvalidField
from engine.model import CodePackage

log = structlog.get_logger("functiond.code")

_CHECKS = 2  #: packages checked at the same time


class PackageChecks:
    """Checks of the packages in a folder. Each package is checked once, because nothing but the disk changes it."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._threads = anyio.CapacityLimiter(_CHECKS)
        self._running: dict[str, anyio.Lock] = {}
        self._sound: set[str] = set()
        self.damaged: set[str] = set()  #: names of packages that cannot be used until they are uploaded again

    async def check(self, package: CodePackage) -> None:
        """Check a package unless that was done. Raise OSError if it is damaged, or if its files cannot be read."""
        name = package.sha256
        if name in self._sound:
            return
        async with self._running.setdefault(name, anyio.Lock()):
            if name in self._sound:
                return
            work = partial(self._check, name, inline=package.kind == "inline")
            await anyio.to_thread.run_sync(work, limiter=self._threads)
            self._sound.add(name)
            self.damaged.discard(name)
        self._running.pop(name, None)

    def _check(self, name: str, *, inline: bool) -> None:
        package, folder = self._folder / f"{name}.package", self._folder / name
        for cache in [*folder.rglob("__pycache__")]:
            shutil.rmtree(cache, ignore_errors=True)
        try:
            changed = _mend_inline(package, folder) if inline else self._mend(package, folder, name)
        except InvalidField:
            changed = None
        if changed is None:
            self.damaged.add(name)
            log.error("code package damaged", package=name, advice="upload the code of its functions again")
            raise OSError(errno.EIO, "the code package is damaged on disk", str(package))
        if changed:
            log.warning(
                "changed files of a code package restored", package=name, files=[str(one) for one in changed[:5]]
            )

    def _mend(self, package: Path, folder: Path, name: str) -> list[Path] | None:
        """Restore changed files of a zip. Return their paths, or None if the zip is damaged."""
        if digest_of(package, "sha256") != name:
            return None
        with package.open("rb") as file:
            return unpack_changed(file, folder, self._limits)


def _mend_inline(package: Path, folder: Path) -> list[Path] | None:
    """Restore the file of inline source. Return its path if it was changed, or None if the source is damaged."""
    source, target = package.read_bytes(), inline_source(package, folder)
    if target is None or target.read_bytes() == source:
        return None if target is None else []
    replace_file(target, [source], target.stat().st_mode & 0o777)
    return [target.relative_to(folder)]
