"""Locked dependencies of CI: they cover pyproject.toml, each file has a hash, and none says where to load it from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / ".ci" / "requirements.txt").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["classifiers"]
    if classifier.startswith("Programming Language :: Python")
]


def entries() -> Iterator[tuple[str, str]]:
    """Yield each locked requirement, and the lines that belong to it."""
    for entry in re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", LOCK, flags=re.MULTILINE)):
        if entry.strip():
            head, _, hashes = entry.partition(" \\\n")
            yield head, hashes


def locked(python: str) -> Mapping[str, Version]:
    """Return the locked versions for a version of Python on Linux, by the names of the packages."""
    environment = {"python_full_version": f"{python}.0", "python_version": python, "sys_platform": "linux"}
    versions: dict[str, Version] = {}
    for head, _ in entries():
        requirement = Requirement(head)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            [pin] = requirement.specifier
            assert pin.operator == "=="
            versions[canonicalize_name(requirement.name)] = Version(pin.version)
    return versions


def required(extra: str = "dev") -> Iterator[Requirement]:
    """Yield the requirements of functiond with an extra, and those of the extras that it includes."""
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            yield requirement
            continue
        for inner in requirement.extras:
            yield from required(inner)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_locked_at_a_permitted_version(python: str) -> None:
    versions = locked(python)

    wrong = [
        str(requirement)
        for requirement in required()
        if not (version := versions.get(canonicalize_name(requirement.name)))
        or not requirement.specifier.contains(version)
    ]
    assert wrong == [], "run .ci/lock"
    assert {"hatchling", "editables"} <= versions.keys()
    assert len(versions) > 50


def test_every_locked_package_has_hashes() -> None:
    for head, hashes in entries():
        assert re.fullmatch(r"(    --hash=sha256:[0-9a-f]{64}( \\)?\n?)+", hashes), head


def test_the_lock_names_no_place() -> None:
    place = re.compile(r"://|^-|^ +--(?!hash=)|/(home|root|tmp|work)/")
    assert [line for line in LOCK.splitlines() if place.search(line)] == []
    assert PYTHONS == ["3.11", "3.13"]
