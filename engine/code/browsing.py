"""Files of stored code packages, for people who look at them.

A zip is read as it was received, not from the unpacked folder, because functions may have written to the folder.
Reading blocks the calling thread.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from heapq import nsmallest
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from engine.code.unpacking import files_of
from engine.model import CodePackage

MOST = 1000  #: files of a list
TEXT_LIMIT = 256 << 10  #: bytes of a file that is shown


class PackageFile(Struct, frozen=True, kw_only=True):
    path: str
    size: int  #: bytes


class PackageFiles(Struct, frozen=True, kw_only=True):
    """First ``MOST`` files of a package, by path; number and bytes of all of them."""

    files: list[PackageFile]
    count: int
    size: int


class FileText(Struct, frozen=True, kw_only=True):
    """Text of a file, or the reason why it is not shown."""

    text: str = ""
    reason: str = ""  #: empty: ``text`` is all of the file
    binary: bool = False


class PackageView(Struct, frozen=True, kw_only=True):
    """Files of a package, and the text of one of them."""

    files: PackageFiles
    path: str = ""  #: file whose text is shown; empty: none
    text: FileText | None = FileText()  #: None: there is no such file


def view_package(package: Path, code: CodePackage, choose: Callable[[PackageFiles], str]) -> PackageView:
    """Return the files of a package, and the text of the file that ``choose`` returns the path of; empty: of none.

    The directory of a zip is read once. Raises OSError if the package cannot be read, or is damaged.
    """
    with package.open("rb") as file:
        if code.kind == "inline":
            return _view_source(file, code, choose)
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise OSError(f"the package is damaged: {error}") from None
        with archive:
            return _view_archive(archive, choose)


def _view_source(file: BinaryIO, code: CodePackage, choose: Callable[[PackageFiles], str]) -> PackageView:
    files = PackageFiles(files=[PackageFile(path=code.filename, size=code.size)], count=1, size=code.size)
    path = choose(files)
    text = _shown(file.read(TEXT_LIMIT + 1)) if path == code.filename else None
    return PackageView(files=files, path=path, text=text if path else FileText())


def _view_archive(archive: zipfile.ZipFile, choose: Callable[[PackageFiles], str]) -> PackageView:
    entries = dict(files_of(archive))
    sizes = ((path, entry.file_size) for path, entry in entries.items())
    first = nsmallest(MOST, sizes, key=lambda one: (one[0].count("/") > 0, one[0]))
    files = PackageFiles(
        files=[PackageFile(path=path, size=size) for path, size in first],
        count=len(entries),
        size=sum(one.file_size for one in entries.values()),
    )
    path = choose(files)
    text = _text(archive, entries[path]) if path in entries else None
    return PackageView(files=files, path=path, text=text if path else FileText())


def _text(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> FileText:
    try:
        with archive.open(entry) as opened:
            return _shown(opened.read(TEXT_LIMIT + 1))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return FileText(reason=f"The package is damaged: {error}.")


def _shown(content: bytes) -> FileText:
    if len(content) > TEXT_LIMIT:
        return FileText(reason=f"The file has more than {TEXT_LIMIT >> 10} KiB. Download the package to read it.")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return FileText(reason="The file is binary. Download the package to read it.", binary=True)
    return FileText(text=text)
