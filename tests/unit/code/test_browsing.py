"""Files of packages as people see them, also of packages that the disk has damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from engine.code.browsing import list_files, read_text
from engine.model import CodePackage

CODE = CodePackage(sha256="", digest="", size=0)


def package(folder: Path) -> Path:
    file = folder / "a.package"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.py", "x = 1\n" * 100)
    return file


def test_a_file_is_listed_and_shown(tmp_path: Path) -> None:
    assert [(one.path, one.size) for one in list_files(package(tmp_path), CODE).files] == [("index.py", 600)]
    shown = read_text(package(tmp_path), CODE, "index.py")
    assert shown is not None
    assert shown.text == "x = 1\n" * 100


def test_a_package_without_its_end_cannot_be_listed(tmp_path: Path) -> None:
    file = package(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(OSError, match="the package is damaged"):
        list_files(file, CODE)


def test_a_file_with_damaged_content_is_not_shown(tmp_path: Path) -> None:
    file = package(tmp_path)
    content = bytearray(file.read_bytes())
    content[38:42] = b"\xff" * 4  # behind the head of the file
    file.write_bytes(content)

    shown = read_text(file, CODE, "index.py")

    assert shown is not None
    assert shown.reason.startswith("The package is damaged")
