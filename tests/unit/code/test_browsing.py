"""Files of packages as people see them, also of packages that the disk has damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.code.browsing import PackageView, view_package
from engine.model import CodePackage

CODE = CodePackage(sha256="", digest="", size=0)


def package(folder: Path) -> Path:
    file = folder / "a.package"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.py", "x = 1\n" * 100)
    return file


def view(file: Path, path: str = "index.py") -> PackageView:
    return view_package(file, CODE, lambda files: path)


def test_a_file_is_listed_and_shown(tmp_path: Path) -> None:
    shown = view(package(tmp_path))

    assert [(file.path, file.size) for file in shown.files.files] == [("index.py", 600)]
    assert shown.text is not None
    assert shown.text.text == "x = 1\n" * 100
    assert view(package(tmp_path), "lib").text is None


def test_the_directory_of_a_package_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Counted(zipfile.ZipFile):
        def __init__(self, *args: Any) -> None:
            opened.append(args)
            super().__init__(*args)

    file = package(tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    view(file)

    assert len(opened) == 1


def test_a_package_without_its_end_cannot_be_listed(tmp_path: Path) -> None:
    file = package(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(OSError, match="the package is damaged"):
        view(file)


def test_a_file_with_damaged_content_is_not_shown(tmp_path: Path) -> None:
    file = package(tmp_path)
    content = bytearray(file.read_bytes())
    content[38:42] = b"\xff" * 4  # behind the head of the file
    file.write_bytes(content)

    shown = view(file).text

    assert shown is not None
    assert shown.reason.startswith("The package is damaged")
