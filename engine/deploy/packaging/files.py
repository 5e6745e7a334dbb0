"""Files of a folder that belong into its package, and their zip package."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct
from pathspec import GitIgnoreSpec

from engine.code.store import PACKAGE_LIMIT
from engine.code.unpacking import Limits
from engine.errors import UsageError

LIMITS = Limits()  #: of the engine, for the files of a package
_MOMENT = (1980, 1, 1, 0, 0, 0)  #: earliest time that a zip file can contain
_SHOWN = 3  #: folders that an error names
IGNORE_FILES = (".functiondignore", ".gitignore")  #: the first that exists is read
#: Files and folders of variables, keys and logins.
_SECRETS = (
    ".env", ".env.*", "credentials.toml", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk",
    ".netrc", ".git-credentials", ".pgpass", ".my.cnf", ".htpasswd", ".ssh", ".aws", ".gnupg", ".kube", ".docker",
)  # fmt: skip
_EXCLUDED = frozenset(
    {
        *("__pycache__", ".git", ".hg", ".svn", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
        *(".npmrc", ".pypirc"),  # of registries, often with tokens
        *IGNORE_FILES,
    }
)
_MARKS = ("pyvenv.cfg", "journal.db")  #: files of excluded folders: virtual environments, and data of an engine
_DEPTH, _NAME = 64, 1024  #: folders and bytes of a name in a package


class Totals:
    """Number and sizes of the files of a package, which are checked while files are added."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._count = self._size = 0
        self._folders: Counter[str] = Counter()

    def add(self, name: str, size: int) -> None:
        """Count a file. Raises UsageError if the package exceeds a limit of the engine."""
        parts = name.split("/")
        self._folders["/".join(parts[: 2 if parts[0] == "node_modules" else 1])] += size
        self._count, self._size = self._count + 1, self._size + size
        if self._count > LIMITS.entries:
            raise self.exceeded(f"more than {LIMITS.entries:,} files")
        if self._size > LIMITS.unpacked:
            raise self.exceeded(f"files of more than {_mib(LIMITS.unpacked)}")

    def exceeded(self, limit: str) -> UsageError:
        """Return the error for a limit, with the largest files and folders."""
        largest = ", ".join(f"{name} ({_mib(size)})" for name, size in self._folders.most_common(_SHOWN))
        advice = "name what the function does not need in .functiondignore"
        return UsageError(f"the package of {self._shown} has {limit}, the largest being {largest}: {advice}")


def zipped(files: Mapping[str, Path], shown: str, bootstrap: bytes = b"") -> bytes:
    """Return files, by their names in the package, as a zip package, with the content of a ``bootstrap`` if given.

    A ``bootstrap`` is executable, whatever its mode. Raises UsageError if the package exceeds a limit of the engine;
    OSError if a file cannot be read.
    """
    packed, totals = io.BytesIO(), Totals(shown)
    for name, file in files.items():
        totals.add(name, file.stat().st_size)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            archive.writestr(_entry(name, name == "bootstrap" or os.access(file, os.X_OK)), file.read_bytes())
            if packed.tell() > PACKAGE_LIMIT:
                raise totals.exceeded(f"more than {_mib(PACKAGE_LIMIT)}")
        if bootstrap:
            archive.writestr(_entry("bootstrap", True), bootstrap)
    return packed.getvalue()


def _entry(name: str, is_program: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o100755 if is_program else 0o100644) << 16
    return entry


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _read(file: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(file.read_text().splitlines())
    except ValueError as error:  # not UTF-8, or not a pattern
        raise UsageError(f"{file} is not a list of patterns as in .gitignore: {error}") from None


class Selection(Struct, kw_only=True):
    """Files of a package by their names in it, and paths that were left out."""

    found: dict[str, Path] = {}
    secrets: list[str] = []  #: files and folders that may hold secrets, such as ``.env``
    ignored: list[str] = []  #: files and folders that the ignore file names
    unusable: list[str] = []  #: links to nothing, sockets and other special files
    rules: str = ""  #: name of the ignore file; empty: none


def select(root: Path) -> Selection:
    """Return the files of a folder that belong into its package.

    Raises UsageError if a link leads out of the folder, a name is not allowed in packages, or the files are too many or
    too large; OSError if a file or folder cannot be read.
    """
    selection = Selection(rules=next((name for name in IGNORE_FILES if (root / name).is_file()), ""))
    _Walk(root, selection).visit(os.path.realpath(root), "", ())
    if not selection.found:
        hint = f" besides those that {selection.rules} names" if selection.ignored else ""
        raise UsageError(f"{root} contains no files{hint}: a function needs at least one, such as index.py")
    return selection


class _Walk:
    """Walk through a folder. Paths are relative to it, with ``/`` between their parts."""

    def __init__(self, root: Path, selection: Selection) -> None:
        self._shown, self._root = root, os.path.realpath(root)
        self._selection, self._totals = selection, Totals(str(root))
        self._ignored = _read(root / selection.rules) if selection.rules else GitIgnoreSpec([])

    def visit(self, folder: str, prefix: str, parents: tuple[str, ...]) -> None:
        """Select the files below ``folder``, a real path. ``parents`` are the real paths of the folders around it."""
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            path = prefix + entry.name
            if self._leaves_out(path, entry):
                continue
            if entry.is_symlink():
                self._check_link(path, entry, (*parents, folder))
            if entry.is_dir():
                self.visit(os.path.realpath(entry), f"{path}/", (*parents, folder))
            elif entry.is_file():
                self._check_name(path)
                self._totals.add(path, entry.stat().st_size)
                self._selection.found[path] = Path(entry.path)
            else:
                self._selection.unusable.append(path)

    def _leaves_out(self, path: str, entry: os.DirEntry[str]) -> bool:
        marked = entry.is_dir() and any(os.path.exists(os.path.join(entry.path, name)) for name in _MARKS)
        if marked or _is_excluded(path):
            return True
        if _is_secret(path):
            self._selection.secrets.append(path)
        elif self._ignored.match_file(f"{path}/" if entry.is_dir() else path):
            self._selection.ignored.append(path)
        else:
            return False
        return True

    def _check_link(self, path: str, entry: os.DirEntry[str], parents: tuple[str, ...]) -> None:
        target = os.path.realpath(entry)
        inside = os.path.relpath(target, self._root)
        problem = ""
        if inside == ".." or inside.startswith("../"):
            problem = "is outside the folder: put a copy in its place"
        elif target in parents:
            problem = "contains the link: remove the link"
        elif _is_secret(inside) or _is_excluded(inside):
            problem = "is never packed: remove the link"
        if problem:
            shown = f"{self._shown / path} is a link to {os.readlink(entry)}, which {problem}"
            raise UsageError(f"{shown}, or name it in .functiondignore")

    def _check_name(self, path: str) -> None:
        problem = ""
        if "\\" in path or ":" in path[:2] or not path.isprintable():
            problem = "has a character that packages do not allow (a backslash, a control character, or an early colon)"
        elif path.count("/") >= _DEPTH or len(path.encode()) > _NAME:
            problem = f"has more than {_NAME} bytes or {_DEPTH} folders"
        if problem:
            raise UsageError(
                f"the name {str(self._shown / path)!r} {problem}: rename it, or name it in .functiondignore"
            )


def _is_secret(path: str) -> bool:
    return any(fnmatchcase(part, pattern) for part in path.split("/") for pattern in _SECRETS)


def _is_excluded(path: str) -> bool:
    """Return whether no package contains the path, whatever the ignore file says."""
    caches = "/node_modules/.cache/" in f"/{path}/"
    return caches or path.endswith(".pyc") or not _EXCLUDED.isdisjoint(path.split("/"))
