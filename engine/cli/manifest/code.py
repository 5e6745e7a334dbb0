"""Code of a function in a manifest, compared with the code that the engine has."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from typing import Any, NamedTuple

from engine.cli.client import Client, path_of


class File(NamedTuple):
    digest: str
    mode: int  #: 0o755 for programs, 0o644 for other files; symbolic links have their own


def is_same_code(client: Client, function: dict[str, Any], package: bytes) -> bool:
    """Return whether a function has the files of a zip package.

    Packages of equal files differ if other programs made them. The engine's package is then read, and the files are
    compared.
    """
    if function["digest"] == hashlib.sha512(package).hexdigest():
        return True
    stored = stored_code(client, function)
    return stored is not None and files_of(stored) == files_of(package)


def stored_code(client: Client, function: dict[str, Any]) -> bytes | None:
    """Return the code that the engine has, as a zip package; None if the engine does not send so large packages."""
    shown = client.get(path_of(function["func_urn"], "/code"))
    code = base64.b64decode(shown["func_code"]["file"])
    if not code:
        return None
    if function["code_type"] != "inline":
        return code
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        entry = zipfile.ZipInfo(_inline_name(function))
        entry.external_attr = 0o100644 << 16
        archive.writestr(entry, code)
    return packed.getvalue()


def files_of(package: bytes) -> dict[str, File]:
    """Return the files of a zip package by name; none if it is no zip package."""
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            found = {}
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
                    found[entry.filename] = File(digest, mode_of(entry))
            return found
    except zipfile.BadZipFile:
        return {}


def mode_of(entry: zipfile.ZipInfo) -> int:
    mode = entry.external_attr >> 16
    if mode & 0o170000 == 0o120000:
        return mode
    return 0o755 if mode & 0o111 else 0o644


def _inline_name(function: dict[str, Any]) -> str:
    if name := function["code_filename"]:
        return str(name)
    ending = ".js" if function["runtime"].startswith("Node") else ".py"
    return str(function["handler"].rpartition(".")[0] or "index") + ending
