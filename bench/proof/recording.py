"""Recording of an engine's file operations, and failures of chosen operations, by a library that is preloaded.

The library ``shim.c`` is compiled with gcc. It appends a record of each operation to a file, so the size of this file
is a position in the history of the disk: all operations recorded below a position were done before it.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from enum import IntFlag
from pathlib import Path

from msgspec import Struct

SOURCE = Path(__file__).with_name("shim.c")
_HEAD = struct.Struct("<c3xHHQQQQ")
_CONTROL = struct.Struct("<iiiiqq64s512s32s")
_PAGE = 4096


class Calls(IntFlag):
    """Kinds of calls that can be made to fail."""

    WRITE = 1  #: writes, truncations and allocations
    SYNC = 2
    OPEN = 4  #: opened and created files, new folders and links
    UNLINK = 8  #: removed and renamed names
    READ = 16


class Failure(Struct, frozen=True, kw_only=True):
    """Call that was made to fail."""

    call: str
    path: str  #: relative to the data directory, with a slash at its begin

    def __str__(self) -> str:
        return f"{self.call} {self.path}"


class Operation(Struct, frozen=True):
    """Recorded operation of the engine.

    ``type`` is C (create), M (mkdir), W (write), T (truncate), A (allocate), R (rename), L (link), U (unlink),
    D (rmdir), F (sync of a file) or G (sync of a folder).
    """

    position: int  #: bytes of the recording up to the end of this record
    type: str
    path: str  #: relative to the data directory; empty for the directory itself
    target: str
    inode: int
    offset: int
    size: int
    begun: int  #: position at which a sync began
    data: bytes | memoryview


class Recorder:
    """Recording of one engine process. ``folder`` gets the library, the recording and the file of commands."""

    def __init__(self, folder: Path, data: Path, *, record: bool = True) -> None:
        self.file, self._data, self._record = folder / "recording", data.resolve(), record
        self._library, self._control = folder / "shim.so", folder / "control"
        if not self._library.exists():
            build(self._library)
        self._control.write_bytes(bytes(_PAGE))
        if record:
            self.file.touch()
        with self._control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _PAGE)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the environment with which the engine must be started."""
        paths = {"LD_PRELOAD": self._library, "PROOF_ROOT": self._data, "PROOF_CONTROL": self._control}
        if self._record:
            paths["PROOF_LOG"] = self.file
        return {name: str(path) for name, path in paths.items()}

    @property
    def position(self) -> int:
        """Bytes recorded so far, or 0 if only failures are made."""
        return self.file.stat().st_size if self._record else 0

    def restart(self) -> None:
        """Follow the next process that is started with the environment instead of the one before."""
        self._shared[:] = bytes(_PAGE)

    def fail(self, kinds: Calls, number: int, error: int, *, repeat: bool = False) -> None:
        """Make the call with this number, counted from 1 and from now, fail with ``error`` (an errno).

        With 0 as the error, the process is killed in place of the call. With ``repeat``, all later calls fail, too.
        """
        pid = _CONTROL.unpack_from(self._shared)[0]
        _CONTROL.pack_into(self._shared, 0, pid, 0, error, repeat, number, 0, b"", b"", b"")
        struct.pack_into("<i", self._shared, 4, kinds)  # last, because it begins the count

    def stop_failing(self) -> None:
        struct.pack_into("<i", self._shared, 4, 0)

    @property
    def failed(self) -> Failure | None:
        """Last call that was made to fail, or None."""
        *_, count, _, path, call = _CONTROL.unpack_from(self._shared)
        if not count:
            return None
        return Failure(call=call.rstrip(b"\0").decode(), path=path.rstrip(b"\0").decode(errors="replace"))

    def calls(self, kind: Calls) -> int:
        """Return the number of calls of one kind since the start of the process, or the last call of ``fail``."""
        counts = struct.unpack("<8q", _CONTROL.unpack_from(self._shared)[6])
        return int(counts[kind.bit_length() - 1])

    def close(self) -> None:
        self._shared.close()

    def operations(self) -> Iterator[Operation]:
        return read_operations(self.file, self._data)


def build(library: Path) -> None:
    """Compile the preloaded library. Raises FileNotFoundError without gcc."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("the proof needs gcc: install it (Debian: apt-get install gcc libc6-dev)")
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run([compiler, *options, "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)


def read_operations(recording: Path, data: Path | str) -> Iterator[Operation]:
    """Yield the operations of a recording. ``data`` is the data directory of the recorded engine."""
    content, root, at = memoryview(recording.read_bytes()), str(data), 0

    def relative(begin: int, size: int) -> str:
        return str(content[begin : begin + size], "utf-8", "surrogateescape").removeprefix(root).lstrip("/")

    while at + _HEAD.size <= len(content):
        type_, path, target, inode, offset, size, begun = _HEAD.unpack_from(content, at)
        names = at + _HEAD.size
        begin = names + path + target
        at = begin + (size if type_ == b"W" else 0)
        if at > len(content):
            return  # the process was killed in this record
        yield Operation(
            at,
            type_.decode(),
            relative(names, path),
            relative(names + path, target),
            inode,
            offset,
            size,
            begun,
            content[begin:at],
        )
