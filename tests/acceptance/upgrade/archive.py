"""Archives of data directories, and manifests of their contents."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

FOLDER = Path(__file__).parent / "archives"
#: Names of files that an engine makes anew.
_LEFT_OUT = frozenset({"lock", "tmp", "ballast", "journal.db-shm", "__pycache__"})
_MANIFEST = "manifest.json"


class Unended(Struct, frozen=True, kw_only=True):
    """Invocation that the next engine continues."""

    function: str
    record: dict[str, Any]  #: shortly before the kill
    end: dict[str, Any]  #: fields of the record after its end


class Manifest(Struct, frozen=True, kw_only=True):
    """Contents of a data directory, as the API of the engine that wrote it replied before it was killed."""

    engine: str  #: commit of this engine
    stopped_at: float  #: time of the kill, in seconds since the epoch
    ids: dict[str, str]  #: ids that the engine chose, by names that the writer chose
    replies: dict[str, Any]  #: by path
    deliveries: list[dict[str, Any]]  #: given up, and retried later
    records: list[Any]  #: of a DIS stream
    unended: dict[str, Unended]  #: by request id


def pack(data: Path, manifest: Manifest, folder: Path) -> Path:
    """Write the archive of a data directory with its manifest, named for its engine. Return the archive."""
    archive = folder / f"{manifest.engine}.tar.xz"
    text = msgspec.json.encode(manifest, order="sorted")
    header = tarfile.TarInfo(_MANIFEST)
    header.size = len(text)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        tar.add(data, "data", filter=_kept)
        tar.addfile(header, io.BytesIO(text))
    return archive


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return the entry without its owner, or None if it stays out of the archive. Its time counts for logs."""
    entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "", ""
    return None if Path(entry.name).name in _LEFT_OUT else entry


def names() -> Iterable[str]:
    """Return the names of all archives in the repository."""
    return sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


def unpack(name: str, folder: Path) -> tuple[Path, Manifest]:
    """Unpack an archive into a folder. Return the data directory and its manifest."""
    with tarfile.open(FOLDER / f"{name}.tar.xz") as tar:
        tar.extraction_filter = lambda entry, _: entry  # the argument ``filter`` needs Python 3.11.4
        tar.extractall(folder)
    return folder / "data", msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
