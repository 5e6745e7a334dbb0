"""Credentials of clients: access keys that sign requests, bearer tokens, and the TOML file that contains both.

Tokens, access keys and names lead to the identity of a client. The ``repr`` of each type omits secrets, so that log
lines and messages with such objects contain none.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.auth.roles import Principal, Role
from engine.errors import SettingsError
from engine.errors.files import check_closed

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
    check_closed(file, status, f"{file} contains credentials")


def first_twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


_NO_SECRET = hashlib.sha256(b"").digest()  # no access key has an empty secret


class Principals:
    """Index of the principals of an engine, by token, by access key and by name."""

    def __init__(self, keys: Sequence[AccessKey], tokens: Sequence[Token]) -> None:
        projects = {credential.project for credential in (*keys, *tokens) if credential.project}
        self.several = len(projects) > 1  #: credentials name several projects
        self._keys = {key.access: self._principal(key, key.access, key.secret.encode(), key.token) for key in keys}
        # Keyed by hash, so that the time of a lookup reveals nothing about the tokens.
        by_hash = {_digest(token.token.encode()): token for token in tokens}
        self._tokens = {key: self._principal(token, f"token {key.hex()[:12]}", key) for key, token in by_hash.items()}
        # No access key has a space, so none has the name of a token.
        self._named = {principal.name: principal for principal in (*self._keys.values(), *self._tokens.values())}
        self.operated = any(principal.operates for principal in self._named.values())

    def of_token(self, token: bytes) -> Principal | None:
        return self._tokens.get(_digest(token))

    def of_access(self, access: str) -> Principal | None:
        return self._keys.get(access)

    def of_secret(self, access: str, secret: bytes, token: bytes) -> Principal | None:
        """Return the principal of an access key, if secret key and security token are those of the key.

        ``token`` is empty for a key without one. The time of the call does not reveal which of them is wrong.
        """
        key = self._keys.get(access)
        expected = _digest(key.secret) if key else _NO_SECRET
        same_secret = compare_digest(_digest(secret), expected)
        same_token = compare_digest(_digest(token), _digest((key.token if key else None) or b""))
        return key if same_secret and same_token else None

    def named(self, name: str) -> Principal | None:
        """Return the principal with a name, as logs and traces show it."""
        return self._named.get(name)

    def _principal(self, given: AccessKey | Token, name: str, secret: bytes, token: str | None = None) -> Principal:
        return Principal(
            name=name,
            project=given.project,
            prefix=f"/v2/{given.project}/" if given.project else "/",
            expires=given.expires.timestamp() if given.expires else math.inf,
            role=given.role,
            operates=given.role == "operator" or (given.role == "admin" and not self.several),
            payloads=given.payloads,
            secret=secret,
            token=None if token is None else token.encode(),
        )


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
