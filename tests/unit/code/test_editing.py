"""Files of a package: shown and edited."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.code import browsing
from engine.code.browsing import COMPARED, PackageView, view_package, with_file, with_line_ends
from engine.errors import InvalidField
from engine.model import CodePackage


def package(folder: Path) -> Path:
    file = folder / "a.package"
    with zipfile.ZipFile(file, "w") as archive:
        for name, mode in (("index.py", 0o100644), ("bootstrap", 0o100755), ("lib/", 0o040755), ("lib/é.txt", 0)):
            entry = zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6))
            entry.external_attr = mode << 16
            archive.writestr(entry, b"" if name.endswith("/") else name.encode() * 3)
    return file


def test_only_the_content_of_the_file_changes(tmp_path: Path) -> None:
    target = io.BytesIO()

    assert with_file(package(tmp_path), target, "bootstrap", "new")

    with zipfile.ZipFile(package(tmp_path)) as before, zipfile.ZipFile(target) as after:
        assert after.namelist() == before.namelist()
        for old, new in zip(before.infolist(), after.infolist(), strict=True):
            assert (new.date_time, new.external_attr) == (old.date_time, old.external_attr)
            assert after.read(new) == (b"new" if new.filename == "bootstrap" else before.read(old))


def test_unchanged_lines_of_a_changed_file_keep_their_ends(tmp_path: Path) -> None:
    file, target = tmp_path / "a.package", io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.py", "a\r\nb\nc\n")

    assert with_file(file, target, "index.py", "a\nnew\nc\n")
    with zipfile.ZipFile(target) as after:
        assert after.read("index.py") == b"a\r\nnew\nc\n"


def test_a_name_in_utf_8_without_its_flag_is_kept(tmp_path: Path) -> None:
    file = package(tmp_path)
    flag = re.compile(rb"(PK(?:\x03\x04|\x01\x02..)..)\x00\x08", re.DOTALL)
    file.write_bytes(flag.sub(rb"\1\0\0", file.read_bytes()))
    target = io.BytesIO()

    assert with_file(file, target, "lib/é.txt", "new")
    with zipfile.ZipFile(target) as after:
        assert after.read("lib/é.txt") == b"new"


def test_a_file_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    target = io.BytesIO()

    assert not with_file(package(tmp_path), target, "lib", "new")
    assert target.getvalue() == b""


def test_a_package_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "UNPACKED_LIMIT", 10)

    with pytest.raises(InvalidField, match="unpacks to more than 10 bytes"):
        with_file(package(tmp_path), io.BytesIO(), "index.py", "new")


# --- ends of lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ("", "a\nb", "a\nb"),
        ("a", "a\nb", "a\nb"),
        ("a\r\nb\r\n", "a\nnew\nb\n", "a\r\nnew\r\nb\r\n"),
        ("a\r\nb\nc\n", "a\nb\nc\n", "a\r\nb\nc\n"),
        ("a\r\nb\nc\nd\r\n", "a\nnew\nc\nd\n", "a\r\nnew\r\nc\nd\r\n"),
        ("a\r\nb\nc\rd", "first\na\nb\nc\nd\n", "first\r\na\r\nb\nc\rd\r\n"),
        ("a\nb\r\nc\nd", "a\nc", "a\nc"),
    ],
)
def test_unchanged_lines_keep_their_ends(before: str, text: str, after: str) -> None:
    assert with_line_ends(text, before) == after


def test_many_changed_lines_get_the_most_common_end() -> None:
    many = [str(number) for number in range(COMPARED + 2)]
    before = "a\r\nb\r\n" + "\n".join(many) + "\nc\r\n"

    assert with_line_ends("\n".join(["a", "b", *many, "c", ""]), before) == before
    assert with_line_ends("\n".join(["a", "B", "b", *many[:-1], "c", ""]), before) == (
        "a\r\nB\nb\n" + "\n".join(many[:-1]) + "\nc\r\n"
    )


CODE = CodePackage(sha256="", digest="", size=0)


def packed(folder: Path) -> Path:
    file = folder / "a.package"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.py", "x = 1\n" * 100)
    return file


def view(file: Path, path: str = "index.py") -> PackageView:
    return view_package(file, CODE, lambda files: path)


def test_a_file_is_listed_and_shown(tmp_path: Path) -> None:
    shown = view(packed(tmp_path))

    assert [(file.path, file.size) for file in shown.files.files] == [("index.py", 600)]
    assert shown.text is not None
    assert shown.text.text == "x = 1\n" * 100
    assert view(packed(tmp_path), "lib").text is None


def test_the_directory_of_a_package_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Counted(zipfile.ZipFile):
        def __init__(self, *args: Any) -> None:
            opened.append(args)
            super().__init__(*args)

    file = packed(tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    view(file)

    assert len(opened) == 1


def test_a_package_without_its_end_cannot_be_listed(tmp_path: Path) -> None:
    file = packed(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(OSError, match="the package is damaged"):
        view(file)


def test_a_file_with_damaged_content_is_not_shown(tmp_path: Path) -> None:
    file = packed(tmp_path)
    content = bytearray(file.read_bytes())
    content[38:42] = b"\xff" * 4  # behind the head of the file
    file.write_bytes(content)

    shown = view(file).text

    assert shown is not None
    assert shown.reason.startswith("The package is damaged")
