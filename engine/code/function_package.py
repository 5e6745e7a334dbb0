"""A function as one file: a zip with its configuration and its code, as export gives it and import takes it.

<name>.yaml   what creating it takes, as JSON (which is YAML, too)
<name>.zip    the code as it was uploaded; of inline code the source, with the ending of its file (none for a bootstrap)

Only the outside of the platform's own format is published: one zip, one YAML file in it (the codes FSS.1022 and
FSS.1025). Its keys are not, so ours are those of CreateFunction, and files from elsewhere are refused by name of
what they lack. JSON needs no reader of YAML, whose other half (tags, anchors) is a door for bombs.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from msgspec import Struct

from engine.code.store import PACKAGE_LIMIT
from engine.code.unpacking import Limits, unpack
from engine.errors import InvalidField

CONFIG_LIMIT = 1 << 20
_CONFIGS = (".yaml", ".yml")
_LIMITS = Limits(entries=16, unpacked=PACKAGE_LIMIT + CONFIG_LIMIT)


class Packed(Struct, frozen=True, kw_only=True):
    """What a package holds."""

    config: bytes
    code: bytes


def pack(name: str, *, config: bytes | None, code: bytes | None, ending: str) -> bytes:
    """What is None is left out. ``ending`` is that of the code's file, such as ``.zip``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if config is not None:
            archive.writestr(f"{name}.yaml", config)
        if code is not None:
            # The code of most functions is packed already.
            kind = zipfile.ZIP_STORED if ending == ".zip" else zipfile.ZIP_DEFLATED
            archive.writestr(f"{name}{ending}", code, compress_type=kind)
    return buffer.getvalue()


def open_package(package: bytes) -> Packed:
    """Blocks. Raises InvalidField, OSError."""
    with tempfile.TemporaryDirectory(prefix="functiond-import-") as folder:
        try:
            unpack(io.BytesIO(package), Path(folder), _LIMITS)
        except InvalidField as problem:
            raise InvalidField("file_code", "a zip package", problem.allowed) from None
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        configs = [file for file in files if file.suffix in _CONFIGS]
        codes = [file for file in files if file.suffix not in _CONFIGS]
        if len(configs) != 1:
            raise InvalidField("yaml_files", len(configs), "a package holds one .yaml file with the configuration")
        if len(codes) != 1:
            raise InvalidField("file_code", f"{len(codes)} files of code", "a package holds one: a .zip or a source")
        if configs[0].stat().st_size > CONFIG_LIMIT:
            raise InvalidField("yaml", "a large file", f"the configuration may have {CONFIG_LIMIT} bytes")
        return Packed(config=configs[0].read_bytes(), code=codes[0].read_bytes())
