"""Files of stored code packages, for people who look at them and change one.

A zip is read as it was received, not from the unpacked folder, because functions may have written to the folder.
Reading blocks the calling thread. In a changed zip, the other files stay as they are, with their modes. A browser sends
one kind of line ends only, so that a text that was edited there gets back those that it had.
"""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from heapq import nsmallest
from pathlib import Path
from typing import IO, BinaryIO

from msgspec import Struct

from engine.code.unpacking import files_of, name_of
from engine.errors import InvalidField
from engine.model import CodePackage

MOST = 1000  #: files of a list
TEXT_LIMIT = 256 << 10  #: bytes of a file that is shown
EDIT_LIMIT = 10 << 20  #: bytes of a package that is packed again
UNPACKED_LIMIT = 64 << 20  #: bytes of all its files; they take some seconds
#: Lines between the first and the last changed one that are compared. More could take minutes.
COMPARED = 2_000
_END = re.compile(r"\r\n|\r|\n")


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
    first = nsmallest(MOST, sizes, key=lambda pair: (pair[0].count("/") > 0, pair[0]))
    files = PackageFiles(
        files=[PackageFile(path=path, size=size) for path, size in first],
        count=len(entries),
        size=sum(entry.file_size for entry in entries.values()),
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


def is_editable(code: CodePackage) -> bool:
    """Return whether the files of a package may be changed: those of small zips."""
    return code.kind == "zip" and code.size <= EDIT_LIMIT


def with_file(package: Path, target: IO[bytes], path: str, text: str) -> bool:
    """Write the zip ``package`` to ``target``, with another text in the file ``path``, and go back to its start.

    Lines of the text end in ``\\n``; those that are not changed keep the ends that they have in the package. Return
    False, with nothing written, if the package has no such file. Raises InvalidField if the file is too large to be
    shown, or if the package unpacks to more than ``UNPACKED_LIMIT`` bytes. Blocks the calling thread.
    """
    with zipfile.ZipFile(package) as source:
        changed = next((entry for name, entry in files_of(source) if name == path), None)
        if changed is None:
            return False
        if sum(entry.file_size for entry in source.infolist()) > UNPACKED_LIMIT:
            raise InvalidField("func_code", "a zip package", f"unpacks to more than {UNPACKED_LIMIT} bytes; upload it")
        if changed.file_size > TEXT_LIMIT:
            raise InvalidField("func_code", path, f"has more than {TEXT_LIMIT} bytes; upload the package")
        content = with_line_ends(text, source.read(changed).decode(errors="replace")).encode(errors="replace")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for info in source.infolist():
                if info is changed:
                    archive.writestr(_as_before(info), content, zipfile.ZIP_DEFLATED)
                elif info.is_dir():
                    archive.writestr(_as_before(info), b"")
                else:
                    with source.open(info) as old, archive.open(_as_before(info), "w") as new:
                        shutil.copyfileobj(old, new)
    target.seek(0)
    return True


def _as_before(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a new entry with the name, the time, the mode and the compression of another one."""
    entry = zipfile.ZipInfo(name_of(info), info.date_time)
    entry.external_attr, entry.create_system = info.external_attr, info.create_system
    entry.compress_type = info.compress_type
    return entry


def with_line_ends(text: str, before: str) -> str:
    """Return ``text``, whose lines end in ``\\n``, with the line ends of the text that it was made from.

    Unchanged lines keep their ends. Other lines get the most common one, and so do those between the first and the last
    changed line if there are more than ``COMPARED``.
    """
    ends = _END.findall(before)
    usual = Counter(ends).most_common(1)[0][0] if ends else "\n"
    if len(set(ends)) < 2:
        return text.replace("\n", usual)
    lines = text.split("\n")
    kept = {new: ends[old] for old, new in _unchanged(_END.split(before), lines) if old < len(ends)}
    return "".join(line + kept.get(number, usual) for number, line in enumerate(lines[:-1])) + lines[-1]


def _unchanged(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of each unchanged line in both texts."""
    shorter = min(len(old), len(new))
    first = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    rest = shorter - first
    last = next((n for n in range(rest) if old[-1 - n] != new[-1 - n]), rest)
    yield from ((n, n) for n in range(first))
    changed = old[first : len(old) - last], new[first : len(new) - last]
    if max(map(len, changed)) <= COMPARED:
        for begin, new_begin, size in SequenceMatcher(None, *changed).get_matching_blocks():
            yield from ((first + begin + n, first + new_begin + n) for n in range(size))
    yield from ((len(old) - last + n, len(new) - last + n) for n in range(last))
