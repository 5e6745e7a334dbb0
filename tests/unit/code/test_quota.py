"""Stored code packages: the quota of a project, and checks of bytes that changed on disk."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from engine.code.quota import CodeQuota
from engine.code.store import CodeSource, CodeStore
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


SOURCE = b"def handler(event, context):\n    return 1000000\n"
CHANGED = SOURCE.replace(b"1000000", b"9000000")

Stored = Callable[[Path], Awaitable[tuple[CodePackage, CodeSource]]]


def source_of(kind: str) -> CodeSource:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lib/index.py", SOURCE)
        archive.writestr("__pycache__/index.pyc", b"cached")
    packed = SOURCE if kind == "inline" else content.getvalue()
    return CodeSource(kind=kind, file=base64.b64encode(packed).decode())


async def stored(folder: Path, kind: str) -> tuple[CodePackage, CodeSource]:
    source = source_of(kind)
    return await CodeStore(folder).add(source, handler="lib.index.handler", runtime="Python3.10"), source


def file_of(folder: Path, package: CodePackage) -> Path:
    return folder / package.sha256 / "lib/index.py"


@pytest.mark.parametrize("kind", ["inline", "zip"])
async def test_a_changed_file_is_restored_from_the_package(tmp_path: Path, kind: str) -> None:
    package, _ = await stored(tmp_path, kind)
    file_of(tmp_path, package).write_bytes(CHANGED)

    await CodeStore(tmp_path).check(package)

    assert file_of(tmp_path, package).read_bytes() == SOURCE


async def test_a_missing_file_is_restored_compiled_code_is_removed_and_others_stay(tmp_path: Path) -> None:
    package, _ = await stored(tmp_path, "zip")
    file_of(tmp_path, package).unlink()
    folder, written = tmp_path / package.sha256, "written_by_the_function"
    (folder / written).write_text("other")
    (folder / "lib/__pycache__/deep").mkdir(parents=True)
    (folder / "lib/__pycache__/index.cpython-311.pyc").write_text("a flipped byte in it changes what runs")

    await CodeStore(tmp_path).check(package)

    assert file_of(tmp_path, package).read_bytes() == SOURCE
    assert (folder / written).read_text() == "other"
    assert not [*folder.rglob("__pycache__")]


@pytest.mark.parametrize("kind", ["inline", "zip"])
async def test_a_changed_package_is_refused_until_it_is_uploaded_again(tmp_path: Path, kind: str) -> None:
    package, source = await stored(tmp_path, kind)
    original = tmp_path / f"{package.sha256}.package"
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    original.write_bytes(content)
    file_of(tmp_path, package).write_bytes(CHANGED)
    store = CodeStore(tmp_path)

    for _ in range(2):
        with pytest.raises(OSError, match="damaged"):
            await store.check(package)
    await store.add(source, handler="lib.index.handler", runtime="Python3.10")
    await store.check(package)

    assert file_of(tmp_path, package).read_bytes() == SOURCE


async def test_a_package_is_checked_once(tmp_path: Path) -> None:
    package, _ = await stored(tmp_path, "inline")
    store = CodeStore(tmp_path)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(store.check, package)
    file_of(tmp_path, package).write_bytes(CHANGED)

    await store.check(package)

    assert file_of(tmp_path, package).read_bytes() == CHANGED
