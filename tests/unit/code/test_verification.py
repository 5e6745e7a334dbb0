"""Check of stored code packages: bytes that changed on disk are restored, or refused if the package changed too."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from engine.code.store import CodeSource, CodeStore
from engine.model import CodePackage

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
