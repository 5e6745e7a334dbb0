"""Code quota of a project: limit on the total size of its packages as uploaded.

A package with several references counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from engine.errors import CodeQuotaExceeded
from engine.model import CodePackage

QUOTA = 10 << 30  #: bytes per project (FunctionGraph's quota)

PackagesOf = Callable[[str], Iterable[CodePackage]]


class CodeQuota:
    def __init__(self, limit: int = QUOTA) -> None:
        self.limit = limit
        self._sources: list[PackagesOf] = []
        self._claimed: list[tuple[str, CodePackage]] = []

    def count(self, packages_of: PackagesOf) -> None:
        """Register ``packages_of(project)``, which yields code packages that the project uses, once per reference."""
        self._sources.append(packages_of)

    def used(self, project: str) -> int:
        """Return the total size of a project's packages in bytes, including those reserved by ``claims``."""
        return sum(self._sizes(project).values())

    @contextmanager
    def claims(self, project: str, replaced: str = "") -> Iterator[Callable[[CodePackage], None]]:
        """Yield a function that reserves quota for a package.

        The function raises CodeQuotaExceeded if the project's packages would exceed the quota together with the new
        one. Reserved packages count until the block ends; by then each is referenced by a function or dependency, or is
        not used. ``replaced`` is the SHA-256 name of a package that loses one reference by this change.
        """
        own: list[tuple[str, CodePackage]] = []

        def admit(package: CodePackage) -> None:
            sizes = self._sizes(project, replaced)
            used = sum(sizes.values())
            if package.sha256 not in sizes and used + package.size > self.limit:
                raise CodeQuotaExceeded(used, package.size, self.limit)
            own.append((project, package))
            self._claimed.append(own[-1])

        try:
            yield admit
        finally:
            for claim in own:
                self._claimed.remove(claim)

    def _sizes(self, project: str, replaced: str = "") -> dict[str, int]:
        packages = [package for packages_of in self._sources for package in packages_of(project)]
        packages += [package for owner, package in self._claimed if owner == project]
        names = [package.sha256 for package in packages]
        if replaced in names:
            del packages[names.index(replaced)]
        return {package.sha256: package.size for package in packages}
