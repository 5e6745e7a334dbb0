"""Dependencies (layers): packages that functions share, in numbered versions under one name.

A function stores a copy of each ``Dependency`` that it names, and published versions keep these copies. The code of
dependencies is in the code store, like the code of functions. Code that neither a dependency nor a function refers to
is removed at the next start.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from engine.code.receiving import ReceivedCode
from engine.code.store import Admit, CodeSource, CodeStore
from engine.errors import (
    BadDependency,
    BadLink,
    DependencyExists,
    DependencyInUse,
    InvalidField,
    TooManyDependencies,
    UnknownDependency,
)
from engine.functions.catalog import Catalog
from engine.model import CodePackage, Dependency
from engine.model.clock import Clock
from engine.protocols import ResourceStore
from engine.resources.dependency_rules import MAX_PER_FUNCTION, MAX_PER_PROJECT, check_dependency
from engine.resources.repository import Repository, project_owner


class NewDependency(Struct, frozen=True, kw_only=True):
    """Request for a new version of a dependency."""

    name: str
    runtime: str
    kind: str  #: ``zip`` or ``obs``
    file: str = ""  #: base64 of the zip
    received: ReceivedCode | None = None  #: the zip, if it is already on disk
    link: str = ""
    description: str = ""


class DependencyRepository(Repository[Dependency]):
    """Versions of all dependencies, each owned by its project."""

    def __init__(self, store: ResourceStore) -> None:
        super().__init__(store, "dependency", Dependency)

    def packages(self) -> set[str]:
        """Return the SHA-256 names of all code packages that dependencies refer to."""
        return {dependency.code.sha256 for _, _, dependency in self.all()}

    def packages_of(self, project: str) -> Iterator[CodePackage]:
        """Yield the code package of each dependency version of a project."""
        return (dependency.code for dependency in self.of(project_owner(project)).values())

    def named(self, project: str, ids: Sequence[str]) -> tuple[Dependency, ...]:
        """Return the dependency versions with these ids.

        Raises UnknownDependency if an id is not found; TooManyDependencies if there are more ids than a function may
        have.
        """
        if len(ids) > MAX_PER_FUNCTION:
            raise TooManyDependencies("a function", MAX_PER_FUNCTION)
        found = self.of(project_owner(project))
        for id in ids:
            if id not in found:
                raise UnknownDependency(id)
        return tuple(found[id] for id in ids)


class Dependencies:
    """Operations on the dependencies of all projects."""

    def __init__(self, repository: DependencyRepository, catalog: Catalog, codes: CodeStore, clock: Clock) -> None:
        self._repository, self._catalog, self._codes, self._clock = repository, catalog, codes, clock

    def list(self, project: str, *, name_part: str = "", runtime: str = "") -> Sequence[Dependency]:
        """Return the newest version of each dependency, sorted by name."""
        newest: dict[str, Dependency] = {}
        for one in sorted(self._of(project), key=lambda dependency: dependency.version):
            newest[one.dep_id] = one
        found = (one for one in newest.values() if name_part in one.name and runtime in ("", one.runtime))
        return sorted(found, key=lambda dependency: dependency.name)

    def versions(self, project: str, dep_id: str) -> Sequence[Dependency]:
        """Return the versions of a dependency, newest first. Raises UnknownDependency if there are none."""
        found = sorted((one for one in self._of(project) if one.dep_id == dep_id), key=lambda one: -one.version)
        if not found:
            raise UnknownDependency(dep_id)
        return found

    def show(self, project: str, dep_id: str, version: str) -> Dependency:
        found = next((one for one in self.versions(project, dep_id) if str(one.version) == version), None)
        if found is None:
            raise UnknownDependency(f"{dep_id} in version {version}")
        return found

    async def create(self, project: str, new: NewDependency) -> Dependency:
        """Create a dependency, or the next version if its name exists. On return its code is unpacked and on disk."""
        check_dependency(new.name, new.runtime, new.description)
        self._next(project, new)
        with self._catalog.quota.claims(project) as admit:
            code = await self._add(new, admit)
            return await self._create(project, new, code, await self._codes.md5(code))

    async def _create(self, project: str, new: NewDependency, code: CodePackage, etag: str) -> Dependency:
        async with self._repository.change():
            dep_id, version = self._next(project, new)
            dependency = Dependency(
                id=str(uuid.uuid4()),
                dep_id=dep_id,
                project=project,
                name=new.name,
                version=version,
                runtime=new.runtime,
                code=code,
                etag=etag,
                description=new.description,
                created_at=self._clock.now(),
            )
            await self._repository.put(project_owner(project), dependency.id, dependency)
        return dependency

    async def delete(self, project: str, dep_id: str, version: str) -> None:
        async with self._repository.change():
            dependency = self.show(project, dep_id, version)
            for function in self._catalog.all():
                if any(one.id == dependency.id for one in function.dependencies):
                    raise DependencyInUse(f"{dependency.name} {version}", f"{function.name}:{function.version}")
            await self._repository.delete(project_owner(project), dependency.id)

    def _of(self, project: str) -> Collection[Dependency]:
        return self._repository.of(project_owner(project)).values()

    def _next(self, project: str, new: NewDependency) -> tuple[str, int]:
        """Return ``dep_id`` and the version number for a new version.

        Raises TooManyDependencies if the project has its maximum; DependencyExists if the name is used for another
        runtime.
        """
        same = [one for one in self._of(project) if one.name == new.name]
        if len(self._of(project)) >= MAX_PER_PROJECT:
            raise TooManyDependencies("a project", MAX_PER_PROJECT)
        if not same:
            return str(uuid.uuid4()), 1
        if same[0].runtime != new.runtime:
            raise DependencyExists(new.name, same[0].runtime)
        return same[0].dep_id, max(one.version for one in same) + 1

    async def _add(self, new: NewDependency, admit: Admit) -> CodePackage:
        if new.kind not in ("zip", "obs"):
            raise InvalidField("depend_type", new.kind, "must be zip or obs")
        source = CodeSource(
            kind=new.kind, file=new.file, received=new.received, filename=f"{new.name}.zip", url=new.link
        )
        try:
            return await self._codes.add(source, handler="", admit=admit)
        except BadLink as problem:
            raise BadLink(problem.link, problem.allowed, "depend_link") from None
        except InvalidField as problem:
            if problem.field == "code_type":
                raise InvalidField("depend_type", new.kind, problem.allowed) from None
            raise BadDependency("depend_file", "a zip package" if new.file else "", problem.allowed) from None
