"""Files of stored code packages, for people who look at them.

A zip is read as it was received, not from the unpacked folder, because functions may have written to the folder. All
functions block the calling thread.
"""

from __future__ import annotations

import zipfile
import zlib
from itertools import islice
from pathlib import Path

from msgspec import Struct

from engine.code.unpacking import contents, find_file
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


def list_files(package: Path, code: CodePackage) -> PackageFiles:
    """Return the files of a package. Raises OSError if it cannot be read, or is damaged."""
    if code.kind == "inline":
        return PackageFiles(files=[PackageFile(path=code.filename, size=code.size)], count=1, size=code.size)
    count = size = 0
    found: list[PackageFile] = []
    try:
        with package.open("rb") as file:
            for path, length, _ in contents(file):
                count, size = count + 1, size + length
                found.append(PackageFile(path=str(path), size=length))
    except zipfile.BadZipFile as error:
        raise OSError(f"the package is damaged: {error}") from None
    found.sort(key=lambda one: (one.path.count("/") > 0, one.path))
    return PackageFiles(files=list(islice(found, MOST)), count=count, size=size)


def read_text(package: Path, code: CodePackage, path: str) -> FileText | None:
    """Return the text of a file of a package; None if there is no such file. Raises OSError if it cannot be read."""
    with package.open("rb") as file:
        if code.kind == "inline":
            return _shown(file.read(TEXT_LIMIT + 1)) if path == code.filename else None
        try:
            with zipfile.ZipFile(file) as archive:
                found = find_file(archive, path)
                if found is None:
                    return None
                with archive.open(found) as opened:
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
        return FileText(reason="The file is binary. Download the package to read it.")
    return FileText(text=text)
