"""Files of a folder that belong into its package.

Zip packages have no links, so a link inside the folder stands for its target's content. Links that lead out of the
folder are refused: their targets are not part of what the user named.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from engine.cli.client import UsageError
from engine.cli.packaging.archive import Totals
from engine.cli.packaging.ignoring import IgnoreRules, is_environment

_DEPTH, _NAME = 64, 1024  #: folders and bytes of a name in a package


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
    rules = IgnoreRules(root)
    selection = Selection(rules=rules.file)
    _Walk(root, rules, selection).visit(os.path.realpath(root), "", ())
    if not selection.found:
        hint = f" besides those that {rules.file} names" if selection.ignored else ""
        raise UsageError(f"{root} contains no files{hint}: a function needs at least one, such as index.py")
    return selection


class _Walk:
    def __init__(self, root: Path, rules: IgnoreRules, selection: Selection) -> None:
        self._shown, self._root = root, os.path.realpath(root)
        self._rules, self._selection = rules, selection
        self._totals = Totals(str(root))

    def visit(self, folder: str, prefix: str, parents: tuple[str, ...]) -> None:
        """Select the files below ``folder``, a real path. ``parents`` are the real paths of the folders around it."""
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
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
        if self._rules.excludes(path) or (entry.is_dir() and is_environment(entry.path)):
            return True
        if self._rules.is_secret(path):
            self._selection.secrets.append(path)
        elif self._rules.ignores(path, folder=entry.is_dir()):
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
        elif self._rules.is_secret(inside) or self._rules.excludes(inside):
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
