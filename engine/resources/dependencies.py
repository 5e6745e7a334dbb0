"""Dependencies (layers): packages that functions share, in numbered versions under one name.

A function stores a copy of each ``Dependency`` that it names, and published versions keep these copies. A function may
name a version by its own id, or by the id of its dependency, which means the newest version at that time. The code of
dependencies is in the code store, like the code of functions. Code that neither a dependency nor a function refers to
is removed at the next start.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from engine.code.receiving import ReceivedCode
from engine.code.store import Admit, CodeSource, CodeStore
from engine.errors import (
    AccessDenied,
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
from engine.model.limits import DESCRIPTION
from engine.model.urn import LATEST
from engine.protocols import ResourceStore
from engine.resources.repository import Repository, project_owner
from engine.runtimes.catalog import find_runtime

NAME = re.compile(r"[A-Za-z]([\w.-]{0,94}[A-Za-z0-9])?", re.ASCII)
NAME_RULE = "needs a letter, then up to 95 letters, digits, -, _ and ., the last a letter or digit"

_RUNTIMES = "must be a runtime of functions, such as Python3.10"


def check_dependency(name: str, runtime: str, description: str) -> None:
    if not NAME.fullmatch(name):
        raise BadDependency("name", name, NAME_RULE)
    if find_runtime(runtime) is None:  # packages for runtimes that this engine does not run are allowed
        raise BadDependency("runtime", runtime, _RUNTIMES)
    if len(description) > DESCRIPTION:
        raise BadDependency("description", description, f"may have {DESCRIPTION} characters")


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
    """Versions of all dependencies, each owned by its project.

    ``shared`` names dependencies, as ``project/name``, that all projects see and can use.
    """

    def __init__(self, store: ResourceStore, shared: Iterable[str] = ()) -> None:
        super().__init__(store, "dependency", Dependency)
        self._shared = frozenset(shared)

    def packages(self) -> set[str]:
        """Return the SHA-256 names of all code packages that dependencies refer to."""
        return {dependency.code.sha256 for _, _, dependency in self.all()}

    def packages_of(self, project: str) -> Iterator[CodePackage]:
        """Yield the code package of each dependency version of a project."""
        return (dependency.code for dependency in self.of(project_owner(project)).values())

    def is_shared(self, dependency: Dependency) -> bool:
        return f"{dependency.project}/{dependency.name}" in self._shared

    def shared(self) -> Mapping[str, Dependency]:
        """Return all versions of the shared dependencies, by id."""
        projects = {name.partition("/")[0] for name in self._shared}
        all_versions = (version for project in projects for version in self.of(project_owner(project)).values())
        return {version.id: version for version in all_versions if self.is_shared(version)}

    def visible(self, project: str) -> Mapping[str, Dependency]:
        """Return the versions of a project's own dependencies and of the shared ones, by id."""
        return {**self.shared(), **self.of(project_owner(project))}

    def named(self, project: str, ids: Sequence[str]) -> tuple[Dependency, ...]:
        """Return the dependency versions with these ids. The id of a dependency stands for its newest version.

        Raises UnknownDependency if an id is not found.
        """
        versions = self.visible(project)
        known = {**{version.dep_id: version for version in _newest(versions.values())}, **versions}
        for id in ids:
            if id not in known:
                raise UnknownDependency(id)
        return tuple(known[id] for id in ids)


class Dependencies:
    """Operations on the dependencies of all projects."""

    def __init__(self, repository: DependencyRepository, catalog: Catalog, codes: CodeStore, clock: Clock) -> None:
        self._repository, self._catalog, self._codes, self._clock = repository, catalog, codes, clock
        self.is_shared = repository.is_shared

    def list(self, project: str, *, name_part: str = "", runtime: str = "", kind: str = "") -> Sequence[Dependency]:
        """Return the newest version of each dependency, sorted by name.

        With ``kind`` "private", only those of the project are returned; with "public", only shared ones; else both.
        Raises InvalidField, with the code of invalid runtimes, unless ``runtime`` is empty or the name of a runtime.
        """
        if runtime and find_runtime(runtime) is None:
            raise InvalidField("runtime", runtime, f"Invalid runtime. It {_RUNTIMES}")
        if kind == "private":
            versions = self._own(project)
        elif kind == "public":
            versions = self._repository.shared()
        else:
            versions = self._repository.visible(project)
        matching = (
            dependency
            for dependency in _newest(versions.values())
            if name_part in dependency.name and runtime in ("", dependency.runtime)
        )
        return sorted(matching, key=lambda dependency: (dependency.name, dependency.dep_id))

    def versions(self, project: str, dep_id: str) -> Sequence[Dependency]:
        """Return the versions of a dependency, newest first. Raises UnknownDependency if there are none."""
        listed = _versions_of(self._repository.visible(project).values(), dep_id)
        if not listed:
            raise UnknownDependency(dep_id)
        return listed

    def show(self, project: str, dep_id: str, version: str) -> Dependency:
        return _one_of(self.versions(project, dep_id), version)

    async def create(self, project: str, new: NewDependency, *, next_version: bool = True) -> Dependency:
        """Create a dependency. On return its code is unpacked and on disk.

        If its name exists, the next version is created; without ``next_version``, DependencyExists is raised.
        """
        check_dependency(new.name, new.runtime, new.description)
        self._next(project, new, next_version)
        with self._catalog.quota.claims(project) as admit:
            code = await self._add(project, new, admit)
            etag = await self._codes.md5(code)
            async with self._repository.change():
                dep_id, version = self._next(project, new, next_version)
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

    async def update(self, project: str, dep_id: str, new: NewDependency) -> Dependency:
        """Replace name, runtime, description and package of a dependency's newest version, also in its functions.

        Published versions of functions keep the earlier package. Raises the errors of ``_replaced``.
        """
        check_dependency(new.name, new.runtime, new.description)
        old = self._replaced(project, dep_id, new)
        with self._catalog.quota.claims(project, replaced=old.code.sha256) as admit:
            code = await self._add(project, new, admit)
            etag = await self._codes.md5(code)
            async with self._repository.change():
                dependency = replace(
                    self._replaced(project, dep_id, new),
                    name=new.name,
                    runtime=new.runtime,
                    code=code,
                    etag=etag,
                    description=new.description,
                    created_at=self._clock.now(),
                )
                write = partial(self._catalog.replace_dependency, dependency)
                await self._repository.put(project_owner(project), dependency.id, dependency, write)
        return dependency

    async def delete(self, project: str, dep_id: str, version: str = "") -> None:
        """Delete one version of a dependency, or all if ``version`` is empty. None is deleted if one is in use."""
        async with self._repository.change():
            versions = self._own_versions(project, dep_id)
            if version:
                versions = [_one_of(versions, version)]
            for dependency in versions:
                self._check_unused(dependency)
            for dependency in reversed(versions):  # the newest, which names the dependency, is the last one to go
                await self._repository.delete(project_owner(project), dependency.id)

    def _own(self, project: str) -> Mapping[str, Dependency]:
        return self._repository.of(project_owner(project))

    def _own_versions(self, project: str, dep_id: str) -> Sequence[Dependency]:
        """Return the versions of a dependency of the project, which alone may change it, newest first.

        Raises UnknownDependency if there is none, AccessDenied if the dependency is another project's.
        """
        own = _versions_of(self._own(project).values(), dep_id)
        if not own:
            other = self.versions(project, dep_id)[0]
            raise AccessDenied(f"the dependency {other.name} is public: only the project that owns it may change it")
        return own

    def _next(self, project: str, new: NewDependency, next_version: bool) -> tuple[str, int]:
        """Return ``dep_id`` and the version number for a new version.

        Raises TooManyDependencies if the project has its maximum; DependencyExists if the name is used for another
        runtime, or is used and may not get a next version.
        """
        same = [dependency for dependency in self._own(project).values() if dependency.name == new.name]
        if len(self._own(project)) >= self._catalog.limits.dependencies:
            raise TooManyDependencies(self._catalog.limits.dependencies)
        if not same:
            return str(uuid.uuid4()), 1
        if not next_version:
            raise DependencyExists(new.name, same[0].runtime, "choose another name")
        if same[0].runtime != new.runtime:
            raise DependencyExists(new.name, same[0].runtime)
        return same[0].dep_id, max(dependency.version for dependency in same) + 1

    def _replaced(self, project: str, dep_id: str, new: NewDependency) -> Dependency:
        """Return the newest version of a dependency, which ``new`` is to replace.

        Raises DependencyExists if another dependency has the new name; BadDependency for another name or runtime if
        there are more versions, which share both; DependencyInUse for another runtime if a function uses it.
        """
        newest, *others = self._own_versions(project, dep_id)
        named = (dependency for dependency in self._own(project).values() if dependency.name == new.name)
        clash = next((dependency for dependency in named if dependency.dep_id != dep_id), None)
        if clash:
            raise DependencyExists(new.name, clash.runtime, "choose another name")
        for field, before, after in (("name", newest.name, new.name), ("runtime", newest.runtime, new.runtime)):
            if others and before != after:
                allowed = f"is {before} in {len(others) + 1} versions: delete the others first"
                raise BadDependency(field, after, allowed)
        if newest.runtime != new.runtime:
            self._check_unused(newest, LATEST)
        return newest

    def _check_unused(self, dependency: Dependency, by_version: str = "") -> None:
        """Raise DependencyInUse if a function, or only its version ``by_version``, uses the dependency's version."""
        for function in self._catalog.all():
            used = any(copy.id == dependency.id for copy in function.dependencies)
            if used and by_version in ("", function.version):
                own = function.project == dependency.project
                user = f"{function.name}:{function.version}" if own else "a function of another project"
                raise DependencyInUse(f"{dependency.name} {dependency.version}", user)

    async def _add(self, project: str, new: NewDependency, admit: Admit) -> CodePackage:
        if new.kind not in ("zip", "obs"):
            raise InvalidField("depend_type", new.kind, "must be zip or obs")
        source = CodeSource(
            kind=new.kind, file=new.file, received=new.received, filename=f"{new.name}.zip", url=new.link
        )
        try:
            return await self._codes.add(source, project, handler="", admit=admit)
        except BadLink as problem:
            raise BadLink(problem.link, problem.allowed, "depend_link") from None
        except InvalidField as problem:
            if problem.field == "code_type":
                raise InvalidField("depend_type", new.kind, problem.allowed) from None
            raise BadDependency("depend_file", "a zip package" if new.file else "", problem.allowed) from None


def _newest(versions: Iterable[Dependency]) -> Collection[Dependency]:
    """Return the newest version of each dependency."""
    newest: dict[str, Dependency] = {}
    for version in sorted(versions, key=lambda dependency: dependency.version):
        newest[version.dep_id] = version
    return newest.values()


def _versions_of(versions: Iterable[Dependency], dep_id: str) -> Sequence[Dependency]:
    """Return the versions of one dependency, newest first."""
    return sorted((version for version in versions if version.dep_id == dep_id), key=lambda version: -version.version)


def _one_of(versions: Sequence[Dependency], version: str) -> Dependency:
    chosen = next((dependency for dependency in versions if str(dependency.version) == version), None)
    if chosen is None:
        raise UnknownDependency(f"{versions[0].dep_id} in version {version}")
    return chosen
