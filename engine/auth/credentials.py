"""Who may use the engine: access keys that sign, and tokens that are shown; and the file that keeps them.

What is secret appears in no representation of these, so in no log line or message either.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.errors import SettingsError

Project = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Access = Annotated[str, Meta(pattern=r"^[!-+\--<>-~]{1,128}\Z")]  #: printable; a comma or = would end it in the header
Expiry = Annotated[datetime, Meta(tz=True)] | None
#: Short ones can be found by trying, from one signature that was seen.
Secret = Annotated[str, Meta(min_length=16, max_length=8192, pattern=r"^[!-~]+\Z")]


class AccessKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    access: Access
    secret: Secret
    project: Project
    token: Secret | None = None  #: of a temporary key: requests must carry and sign it as X-Security-Token
    expires: Expiry = None

    def __repr__(self) -> str:
        return f"AccessKey(access={self.access!r}, project={self.project!r})"


class Token(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shown as X-Auth-Token."""

    token: Secret
    project: Project
    expires: Expiry = None

    def __repr__(self) -> str:
        return f"Token(project={self.project!r})"


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[keys]]`` and ``[[tokens]]``: what a file of credentials may hold."""

    keys: tuple[AccessKey, ...] = ()
    tokens: tuple[Token, ...] = ()


def read_credentials(file: Path) -> dict[str, Any]:
    """Its tables, checked. Raises SettingsError, also if others than its owner may read it."""
    try:
        with open(file, "rb", opener=_open) as opened:
            check_private(file, os.fstat(opened.fileno()))
            table = tomllib.load(opened)
        msgspec.convert(table, Credentials)
    except OSError as error:
        raise SettingsError(f"cannot read auth.file {file}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise SettingsError(f"auth.file {file}: {error}") from None
    except ValueError as error:
        raise SettingsError(f"auth.file {file} is not valid TOML: {error}") from None
    return table


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe nobody writes to must not hold up the start


def check_private(file: Path, status: os.stat_result) -> None:
    """Raises SettingsError for a file with secrets that is not ours alone."""
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{file} holds credentials, so it must be a plain file")
    if status.st_uid not in (os.geteuid(), 0):
        raise SettingsError(
            f"{file} holds credentials and belongs to user {status.st_uid}: give it to user {os.geteuid()}, who runs us"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SettingsError(f"{file} holds credentials and others may use it (mode {mode:04o}): chmod 600 {file}")


def first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
