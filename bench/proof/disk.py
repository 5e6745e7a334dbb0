"""Model of a disk below a recorded engine: states that a crash may leave at any point of the recording.

Files and names become durable in different ways. By POSIX, a sync makes the content of its file durable, or the names
in its folder. A journaling file system such as ext4 writes names in order, so that any sync makes all earlier names
durable. Content that was written since the last sync may be on the disk in any part: sectors of 512 bytes are whole,
but they may be missing, and later ones may be there without earlier ones.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from random import Random

from bench.proof.recording import Operation

SECTOR = 512
#: Rebuilt by SQLite after a crash, or held by the kernel.
LEFT_OUT = frozenset({"journal.db-shm", "lock"})


class Kind(StrEnum):
    """Part of the operations before the crash that is on the disk after it."""

    ALL = "all"  #: the process was killed, the machine went on
    STRICT = "strict"  #: contents synced by their file, names synced by their folder
    ORDERED = "ordered"  #: contents synced by their file, names by any later sync
    TORN_STRICT = "torn-strict"  #: as strict, with some of the sectors and names that were not synced
    TORN_ORDERED = "torn-ordered"  #: as ordered, with some of the sectors and names that were not synced


class File:
    """File with its content as the engine sees it, its durable content, and the changes between both."""

    __slots__ = ("durable", "now", "pending")

    def __init__(self, content: bytes = b"") -> None:
        self.now, self.durable = bytearray(content), bytearray(content)
        self.pending: deque[Operation] = deque()

    def change(self, operation: Operation) -> None:
        _apply(self.now, operation)
        self.pending.append(operation)

    def sync(self, begun: int) -> None:
        while self.pending and self.pending[0].position <= begun:
            _apply(self.durable, self.pending.popleft())

    def torn(self, random: Random) -> bytearray:
        """Return the durable content with a random part of the changes since, and in half of the calls reordered."""
        content, share = bytearray(self.durable), random.choice((0.1, 0.5, 0.9))
        pieces = [piece for operation in self.pending for piece in _sectors(operation)]
        if random.random() < 0.5:
            random.shuffle(pieces)
        for piece in pieces:
            if random.random() < share:
                _apply(content, piece)
        return content


class Folder:
    """Folder with its names as the engine sees them, and the durable names by POSIX and with ordered names."""

    __slots__ = ("durable", "now", "ordered", "pending")

    def __init__(self) -> None:
        self.now: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.ordered: dict[str, Node] = {}
        self.pending: deque[_Name] = deque()

    def sync(self, begun: int) -> None:
        while self.pending and self.pending[0].position <= begun:
            self.pending.popleft().apply(self.durable)


Node = File | Folder
Image = dict[str, bytes | bytearray | None]  #: contents by path; None for a folder


class _Name:
    """Change of one name. Changes with the same position are done together."""

    __slots__ = ("folder", "name", "node", "position")

    def __init__(self, position: int, folder: Folder, name: str, node: Node | None) -> None:
        self.position, self.folder, self.name, self.node = position, folder, name, node

    def apply(self, names: dict[str, Node]) -> None:
        if self.node is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.node


class Disk:
    """Disk that follows a recording, operation by operation. An image is what a crash at this point may leave."""

    def __init__(self) -> None:
        self.root = Folder()
        self._files: dict[int, File] = {}
        self._names: deque[_Name] = deque()  #: changes of names that no sync has written, in order
        self._done: dict[str, Callable[[Operation], None]] = {
            "C": self._create,
            "M": lambda operation: self._set(operation.position, operation.path, Folder()),
            "U": lambda operation: self._set(operation.position, operation.path, None),
            "D": lambda operation: self._set(operation.position, operation.path, None),
            "R": self._rename,
            "L": lambda operation: self._set(operation.position, operation.target, self._find(operation.path)),
            "F": self._sync_file,
            "G": self._sync_folder,
        }

    def load(self, directory: Path) -> None:
        """Begin with the files of a directory, all of them durable."""
        for parent, folders, files in os.walk(directory):
            folder = self._find(os.path.relpath(parent, directory).lstrip("."))
            assert isinstance(folder, Folder)
            nodes: dict[str, Node] = {name: Folder() for name in folders}
            for name in files:
                path = Path(parent, name)
                nodes[name] = self._files[path.stat().st_ino] = File(path.read_bytes())
            for names in (folder.now, folder.durable, folder.ordered):
                names.update(nodes)

    def apply(self, operation: Operation) -> None:
        if handler := self._done.get(operation.type):
            handler(operation)
        elif file := self._files.get(operation.inode):  # W, T, A
            file.change(operation)

    def image(self, kind: Kind, random: Random) -> Image:
        """Return files and folders after a crash at this point."""
        if kind is Kind.ALL:
            return _collect(self.root, lambda folder: folder.now, lambda file: file.now)
        ordered = kind in (Kind.ORDERED, Kind.TORN_ORDERED)
        if kind in (Kind.STRICT, Kind.ORDERED):
            return _collect(self.root, _ordered if ordered else _durable, lambda file: file.durable)
        changed = _some_ordered(self._names, random) if ordered else lambda folder: _some_names(folder, random)
        return _collect(self.root, changed, lambda file: file.torn(random))

    # --- operations -----------------------------------------------------------------------------------------

    def _create(self, operation: Operation) -> None:
        file = self._files[operation.inode] = File()
        self._set(operation.position, operation.path, file)

    def _rename(self, operation: Operation) -> None:
        node = self._find(operation.path) if operation.path else None
        if operation.path:
            self._set(operation.position, operation.path, None)
        if operation.target:
            self._set(operation.position, operation.target, node)

    def _sync_file(self, operation: Operation) -> None:
        if file := self._files.get(operation.inode):
            file.sync(operation.begun)
        self._write_names(operation.begun)

    def _sync_folder(self, operation: Operation) -> None:
        folder = self._find(operation.path)
        if isinstance(folder, Folder):
            folder.sync(operation.begun)
        self._write_names(operation.begun)

    def _write_names(self, begun: int) -> None:
        while self._names and self._names[0].position <= begun:
            name = self._names.popleft()
            name.apply(name.folder.ordered)

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.root
        for part in filter(None, path.split("/")):
            node = node.now.get(part) if isinstance(node, Folder) else None
        return node

    def _set(self, position: int, path: str, node: Node | None) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._find(parent)
        if not name or not isinstance(folder, Folder):
            return  # the data directory itself, which the model takes as durable
        change = _Name(position, folder, name, node)
        change.apply(folder.now)
        folder.pending.append(change)
        self._names.append(change)


def write_image(image: Image, directory: Path) -> None:
    """Write the files and folders of an image to a new directory."""
    directory.mkdir(parents=True)
    for path, content in image.items():
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).touch(0o600)  # as the engine makes its files
            (directory / path).write_bytes(content)


def _collect(
    root: Folder, names_of: Callable[[Folder], dict[str, Node]], content_of: Callable[[File], bytearray]
) -> Image:
    image, left = Image(), [("", root)]
    while left:
        base, folder = left.pop()
        for name, node in names_of(folder).items():
            path = f"{base}{name}"
            if isinstance(node, Folder):
                image[path] = None
                left.append((f"{path}/", node))
            elif name not in LEFT_OUT:
                image[path] = content_of(node)
    return image


def _durable(folder: Folder) -> dict[str, Node]:
    return folder.durable


def _ordered(folder: Folder) -> dict[str, Node]:
    return folder.ordered


def _some_names(folder: Folder, random: Random) -> dict[str, Node]:
    """Return the durable names of a folder after some of its first changes since."""
    names = dict(folder.durable)
    for change in _first(folder.pending, random):
        change.apply(names)
    return names


def _some_ordered(pending: deque[_Name], random: Random) -> Callable[[Folder], dict[str, Node]]:
    """Return the lookup of names after some of the first changes of all folders."""
    changed: dict[int, dict[str, Node]] = {}
    for change in _first(pending, random):
        change.apply(changed.setdefault(id(change.folder), dict(change.folder.ordered)))
    return lambda folder: changed.get(id(folder), folder.ordered)


def _first(changes: deque[_Name], random: Random) -> Iterable[_Name]:
    if not changes:
        return ()
    until = random.choice([0, *(change.position for change in changes)])
    return [change for change in changes if change.position <= until]


def _sectors(operation: Operation) -> Iterable[Operation]:
    """Yield the parts of a write that lie in different sectors, or any other change unchanged."""
    if operation.type != "W":
        yield operation
        return
    at, end = operation.offset, operation.offset + len(operation.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        data = operation.data[at - operation.offset : until - operation.offset]
        yield Operation(operation.position, "W", "", "", operation.inode, at, until - at, 0, data)
        at = until


def _apply(content: bytearray, operation: Operation) -> None:
    size = len(content)
    if operation.type == "W":
        if size < operation.offset:
            content.extend(bytes(operation.offset - size))
        content[operation.offset : operation.offset + len(operation.data)] = operation.data
    elif operation.type == "T" and operation.size < size:
        del content[operation.size :]
    elif size < (end := operation.size if operation.type == "T" else operation.offset + operation.size):
        content.extend(bytes(end - size))
