"""Function package: a zip that contains a function's configuration and code, for the API's export and import.

    <name>.yaml   fields of CreateFunction as JSON, which is valid YAML
    <name>.zip    the code as uploaded; for inline code the source, with the suffix of its file (none for a bootstrap)

FunctionGraph documents its own format only in outline: a zip that contains one YAML file (error codes FSS.1022 and
FSS.1025). The keys of that file are not documented, so this engine uses the fields of CreateFunction. Packages from
elsewhere are rejected with the name of a missing field. Only JSON is read, because a YAML parser's tags and anchors
would allow decompression attacks.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from msgspec import Struct

from engine.code.store import PACKAGE_LIMIT
from engine.code.unpacking import Limits, unpack
from engine.errors import InvalidField

CONFIG_LIMIT = 1 << 20
_CONFIGS = (".yaml", ".yml")
_LIMITS = Limits(entries=16, unpacked=PACKAGE_LIMIT + CONFIG_LIMIT)


class Packed(Struct, frozen=True, kw_only=True):
    """Contents of a function package."""

    config: bytes
    code: Path


def pack(target: IO[bytes], name: str, *, config: bytes | None, code: Path | None, ending: str) -> int:
    """Write a function package as a zip to ``target``. Return its size, and go back to its start.

    Configuration or code is left out if None. ``ending`` is the suffix of the code's file, such as ``.zip``.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if config is not None:
            archive.writestr(f"{name}.yaml", config)
        if code is not None:
            # A zip is compressed already.
            kind = zipfile.ZIP_STORED if ending == ".zip" else zipfile.ZIP_DEFLATED
            archive.write(code, f"{name}{ending}", compress_type=kind)
    size = target.tell()
    target.seek(0)
    return size


def open_package(package: BinaryIO, folder: Path) -> Packed:
    """Unpack a function package into the empty ``folder``. Blocks the calling thread.

    Raises InvalidField if the zip is unsafe, lacks the configuration or the code, or contains several, or if the
    configuration is too long; OSError if the zip cannot be unpacked to disk.
    """
    try:
        unpack(package, folder, _LIMITS)
    except InvalidField as problem:
        raise InvalidField("file_code", "a zip package", problem.allowed) from None
    files = [file for file in folder.rglob("*") if file.is_file()]
    configs = [file for file in files if file.suffix in _CONFIGS]
    codes = [file for file in files if file.suffix not in _CONFIGS]
    if len(configs) != 1:
        raise InvalidField("yaml_files", len(configs), "a package needs one .yaml file with the configuration")
    if len(codes) != 1:
        raise InvalidField("file_code", f"{len(codes)} files of code", "a package needs one: a .zip or a source")
    if configs[0].stat().st_size > CONFIG_LIMIT:
        raise InvalidField("yaml", "a large file", f"the configuration may have {CONFIG_LIMIT} bytes")
    return Packed(config=configs[0].read_bytes(), code=codes[0])
