"""Credentials of clients: access keys that sign requests, bearer tokens, and the TOML file that contains both.

The ``repr`` of each type omits secrets, so that log lines and messages with such objects contain none.
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

from engine.auth.roles import Role
from engine.errors import SettingsError

Project = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Access = Annotated[str, Meta(pattern=r"^[!-+\--<>-~]{1,128}\Z")]  #: printable; no comma or =, which would end the value
Expiry = Annotated[datetime, Meta(tz=True)] | None
#: long enough against a brute-force search that starts from one observed signature
Secret = Annotated[str, Meta(min_length=16, max_length=8192, pattern=r"^[!-~]+\Z")]


class _Rights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rights of an access key or token."""

    project: Project = ""  #: empty for the role ``operator`` only
    role: Role = "admin"
    payloads: bool = False  #: the role ``read`` also reads payloads and results
    expires: Expiry = None

    def __post_init__(self) -> None:
        if not self.project and self.role != "operator":
            raise ValueError("missing required field `project`")
        if self.project and self.role == "operator":
            raise ValueError("project is for other roles; leave it out for the role operator")
        if self.payloads and self.role != "read":
            raise ValueError(f"payloads is for the role read; leave it out for the role {self.role}")


class AccessKey(_Rights, frozen=True, kw_only=True):
    access: Access
    secret: Secret
    token: Secret | None = None  #: only of a temporary key; requests must send it as X-Security-Token

    def __repr__(self) -> str:
        return f"AccessKey(access={self.access!r}, project={self.project!r})"


class Token(_Rights, frozen=True, kw_only=True):
    """Bearer token, which the client sends unsigned in the header X-Auth-Token."""

    token: Secret

    def __repr__(self) -> str:
        return f"Token(project={self.project!r})"


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a credentials file: access keys in ``[[keys]]`` tables, bearer tokens in ``[[tokens]]`` tables."""

    keys: tuple[AccessKey, ...] = ()
    tokens: tuple[Token, ...] = ()


def read_credentials(file: Path) -> dict[str, Any]:
    """Return the validated tables ``keys`` and ``tokens`` of a credentials file.

    Raises SettingsError if the file is unreadable, invalid, or fails ``check_private``.
    """
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
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe without a writer must not block the start


def check_private(file: Path, status: os.stat_result) -> None:
    """Raise SettingsError unless ``file`` is a regular file, owned by this user or root, and closed to other users."""
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{file} contains credentials, so it must be a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise SettingsError(
            f"{file} contains credentials and belongs to user {status.st_uid}: "
            f"change its owner to user {os.geteuid()}, which runs the engine"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SettingsError(f"{file} contains credentials and others have access (mode {mode:04o}): chmod 600 {file}")


def first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
