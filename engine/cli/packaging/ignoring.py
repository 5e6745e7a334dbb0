"""Rules for what a package leaves out: names that no package contains, and those in the folder's ignore file."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from pathspec import GitIgnoreSpec

from engine.cli.client import UsageError

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


class IgnoreRules:
    """Rules of one folder. Paths are relative to it, with ``/`` between their parts."""

    def __init__(self, root: Path) -> None:
        self.file = next((name for name in IGNORE_FILES if (root / name).is_file()), "")  #: empty: there is none
        self._spec = _read(root / self.file) if self.file else GitIgnoreSpec([])

    def is_secret(self, path: str) -> bool:
        return any(fnmatchcase(part, pattern) for part in path.split("/") for pattern in _SECRETS)

    def excludes(self, path: str) -> bool:
        """Return whether no package contains the path, whatever the ignore file says."""
        caches = "/node_modules/.cache/" in f"/{path}/"
        return caches or path.endswith(".pyc") or not _EXCLUDED.isdisjoint(path.split("/"))

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Return whether the ignore file names the path."""
        return self._spec.match_file(f"{path}/" if folder else path)


def is_environment(folder: str) -> bool:
    """Return whether a folder is a virtual environment."""
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _read(file: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(file.read_text().splitlines())
    except ValueError as error:  # not UTF-8, or not a pattern
        raise UsageError(f"{file} is not a list of patterns as in .gitignore: {error}") from None
