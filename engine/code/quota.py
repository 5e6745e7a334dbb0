"""How much code a project may keep: its packages as they came, packed, each counted once, whoever shares it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from engine.errors import CodeQuotaExceeded
from engine.model import CodePackage

QUOTA = 10 << 30  #: bytes, as the platform has it (spec functiongraph_api, section 9)

PassthroughFields = Callable[[str], Iterable[CodePackage]]


class CodeQuota:
    def __init__(self, limit: int = QUOTA) -> None:
        self.limit = limit
        self._kept: list[PassthroughFields] = []
        self._claimed: list[tuple[str, CodePackage]] = []

    def count(self, kept: PassthroughFields) -> None:
        """``kept(project)`` gives packages of a project, once for each that refers to them."""
        self._kept.append(kept)

    def used(self, project: str) -> int:
        """Bytes."""
        return sum(self._sizes(project).values())

    @contextmanager
    def claims(self, project: str, replaced: str = "") -> Iterator[Callable[[CodePackage], None]]:
        """Gives what admits a package, or raises CodeQuotaExceeded.

        What it has admitted counts until the block is left: by then somebody refers to it, or it is given up.
        ``replaced`` is a package, by its name, to which one that refers to it will do so no longer.
        """
        mine: list[tuple[str, CodePackage]] = []

        def admit(package: CodePackage) -> None:
            sizes = self._sizes(project, replaced)
            used = sum(sizes.values())
            if package.sha256 not in sizes and used + package.size > self.limit:
                raise CodeQuotaExceeded(used, package.size, self.limit)
            mine.append((project, package))
            self._claimed.append(mine[-1])

        try:
            yield admit
        finally:
            for claim in mine:
                self._claimed.remove(claim)

    def _sizes(self, project: str, replaced: str = "") -> dict[str, int]:
        packages = [package for kept in self._kept for package in kept(project)]
        packages += [package for owner, package in self._claimed if owner == project]
        names = [package.sha256 for package in packages]
        if replaced in names:
            del packages[names.index(replaced)]
        return {package.sha256: package.size for package in packages}
