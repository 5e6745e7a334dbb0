"""Code quota of a project: packed size, each package once, packages being stored included."""

from __future__ import annotations

import pytest

from engine.code.quota import CodeQuota
from engine.errors import CodeQuotaExceeded
from engine.model import CodePackage


def package(name: str, size: int) -> CodePackage:
    return CodePackage(sha256=name, digest="", size=size)


def quota(limit: int, *kept: CodePackage) -> CodeQuota:
    """Return the quota of a project ``p`` that has these packages."""
    counted = CodeQuota(limit)
    counted.count(lambda project: kept if project == "p" else ())
    return counted


def test_a_shared_package_counts_once() -> None:
    shared = quota(100, package("a", 30), package("a", 30), package("b", 50))
    shared.count(lambda project: [package("b", 50)])

    assert shared.used("p") == 80


def test_a_package_is_admitted_up_to_the_byte() -> None:
    nearly_full = quota(100, package("a", 60))

    with nearly_full.claims("p") as admit:
        admit(package("fits", 40))
    with pytest.raises(CodeQuotaExceeded, match="60 bytes of code, and 41 more"), nearly_full.claims("p") as admit:
        admit(package("large", 41))


@pytest.mark.parametrize(("project", "name"), [("p", "a"), ("q", "b")], ids=["stored already", "of another project"])
def test_a_package_that_needs_no_room_of_its_project_is_admitted(project: str, name: str) -> None:
    with quota(100, package("a", 100)).claims(project) as admit:
        admit(package(name, 100))


def test_a_replaced_package_makes_room_unless_others_use_it() -> None:
    with quota(100, package("a", 100)).claims("p", replaced="a") as admit:
        admit(package("b", 100))
    published = quota(100, package("a", 100), package("a", 100))
    with pytest.raises(CodeQuotaExceeded), published.claims("p", replaced="a") as admit:
        admit(package("b", 100))


def test_an_upload_counts_until_it_is_stored_or_given_up() -> None:
    empty = quota(100)

    with empty.claims("p") as admit, empty.claims("p") as other:
        admit(package("a", 60))
        with pytest.raises(CodeQuotaExceeded):
            other(package("b", 60))

    assert empty.used("p") == 0
