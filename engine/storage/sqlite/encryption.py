"""Encryption of secrets on disk: encrypted variables of functions, and secret fields of triggers.

The body of a row is a JSON object. Its secrets are encrypted together in the field ``encrypted``, and left out of
their places, so that programs without the key, such as a backup, read the rest. The columns of the row's primary key
are authenticated too: the text is of no use in another row. Texts that the key does not decrypt are kept until new
secrets are set. The row ``key`` of ``meta`` tells a wrong key file from one that was made when the first was lost.

The SQL functions ``encrypted`` and ``decrypted`` of the writing connection convert bodies. Their arguments are
'function', function_id, version and body of a version, or kind, owner, id and body of a resource.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from engine.errors import DataDirectoryUnusable
from engine.errors.files import check_closed, file_errors
from engine.isolation.machine import fsync_path
from engine.storage.sqlite.checkpoints import Checkpoints
from engine.storage.sqlite.offline import read_only

NEXT = "put the key file there that encrypted them and restart the engine, or set these secrets again"
_KEY, _NONCE = 32, 12  #: bytes
_ROWS = (
    "SELECT 'function ' || project || '/' || name || ':' || version, 'function', function_id, version, body"
    " FROM function_version JOIN function USING (function_id) UNION ALL"
    " SELECT 'trigger ' || id || ' of ' || project || '/' || name, kind, owner, id, body"
    " FROM resource JOIN function ON owner = 'function:' || function_id WHERE kind = 'trigger'"
)
_ENCRYPT = (
    "UPDATE function_version SET body = encrypted('function', function_id, version, body)"
    " WHERE encrypted('function', function_id, version, body) <> body",
    "UPDATE resource SET body = encrypted(kind, owner, id, body) WHERE encrypted(kind, owner, id, body) <> body",
)
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_MARK = b'"encrypted":'  #: in the body of each row that has encrypted secrets
log = structlog.get_logger("functiond.journal")


class Encryption:
    """Encryption with the key in ``file``. ``is_secret`` tells by the name of a trigger's field if it is a secret."""

    def __init__(self, file: Path, is_secret: Callable[[str], bool]) -> None:
        self._file, self._key, self._is_secret = file, b"", is_secret
        self.lost = dict[tuple[Any, ...], str]()  #: texts that the key does not decrypt, by the columns of their rows

    def start(self, path: Path, checkpoints: Checkpoints, db: sqlite3.Connection) -> None:
        """Read the key file or make it, and encrypt the secrets in the database ``path`` that are stored plain.

        Raises DataDirectoryUnusable or SettingsError if the file cannot be used, or decrypts none of the secrets.
        """
        key = _read_key(self._file)
        lost = list(_locked(db, key))
        names = ", ".join(name for name, *_ in lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        last = db.execute("SELECT value FROM meta WHERE name = 'key'").fetchall()
        if key and lost and last != [(_number(key),)] and len(lost) == sum(1 for _ in _texts(db)):
            advice = "put the right file there; if it is lost, remove this one, start the engine, and set them again"
            raise DataDirectoryUnusable(str(self._file), f"has another key than the secrets of {names}; {advice}")
        if lost:
            log.error("secrets cannot be decrypted", of=names, key_file=str(self._file), next_step=NEXT)
        self.lost, self._key = {tuple(columns): text for _, columns, text in lost}, key or os.urandom(_KEY)
        db.execute(_PUT, ("key", _number(self._key)))  # first: after a kill, a new file would seem a wrong one
        if not key:
            with file_errors(self._file):
                with open(
                    os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb", buffering=0
                ) as file:
                    file.write(base64.b64encode(self._key) + b"\n")
                    os.fsync(file.fileno())
                fsync_path(self._file.parent)
        db.create_function("encrypted", 4, self._encrypted)
        db.create_function("decrypted", 4, self._decrypted)
        db.execute("BEGIN IMMEDIATE")
        if sum(db.execute(sql).rowcount for sql in _ENCRYPT):
            db.execute(_PUT, ("plain", 1))
        db.execute("COMMIT")
        if db.execute("SELECT 1 FROM meta WHERE name = 'plain'").fetchone():
            _clean(path, checkpoints, db)

    def _encrypted(self, *row: Any) -> bytes:
        *columns, body = row
        fields, lost = _fields(body), self.lost.get(tuple(columns), "")
        stored = fields.pop("encrypted", "")  # only in a stored body: callers set plain ones
        taken = [
            {name: part.pop(name) for name in list(part) if part[name] and is_secret(name)}
            for part, is_secret in self._parts(row[0], fields)
        ]
        if not any(taken):
            return msgspec.json.encode({**fields, "encrypted": lost}) if lost and not stored else bytes(body)
        if stored:  # fields that were plain count as secret now
            if (secrets := _decrypt(self._key, columns, stored)) is None:
                return bytes(body)
            taken = [old | new for old, new in zip(msgspec.json.decode(secrets), taken, strict=True)]
        self.lost.pop(tuple(columns), None)
        text = _encrypt(self._key, columns, msgspec.json.encode(taken))
        return msgspec.json.encode({**fields, "encrypted": text})

    def _decrypted(self, *row: Any) -> bytes:
        *columns, body = row
        fields = _fields(body) if _MARK in body else {}
        secrets = _decrypt(self._key, columns, fields.pop("encrypted", ""))
        if secrets is None:
            return bytes(body)
        for (part, _), taken in zip(self._parts(row[0], fields), msgspec.json.decode(secrets), strict=True):
            part.update(taken)
        return msgspec.json.encode(fields)

    def _parts(self, kind: str, fields: dict[str, Any]) -> list[tuple[dict[str, Any], Callable[[str], bool]]]:
        """Return the objects of a body that may have secrets, with the test for their names."""
        if kind == "function":
            return [(part, "encrypted_user_data".__eq__) for part in (fields, fields.get("details", {}))]
        return [(fields.get("data", {}), self._is_secret)] if kind == "trigger" else []


def locked_names(folder: Path, key_file: Path) -> list[str]:
    """Return the names of functions and triggers in a folder with secrets that the key file does not decrypt.

    Raises DataDirectoryUnusable or SettingsError if the database or the file cannot be read.
    """
    key = _read_key(key_file)
    try:
        with read_only(folder) as db:
            return [name for name, *_ in _locked(db, key)]
    except sqlite3.Error as error:
        raise DataDirectoryUnusable(str(folder), f"its secrets cannot be read: {error}") from error


def _locked(db: sqlite3.Connection, key: bytes) -> Iterator[tuple[str, list[Any], str]]:
    """Return name, columns and text of each row whose secrets the key does not decrypt."""
    return (row for row in _texts(db) if _decrypt(key, *row[1:]) is None)


def _texts(db: sqlite3.Connection) -> Iterator[tuple[str, list[Any], str]]:
    """Yield name, columns and text of each row that has encrypted secrets."""
    for name, *columns, body in db.execute(_ROWS):
        if _MARK in body and (text := _fields(body).get("encrypted", "")):
            yield name, columns, text


def _clean(path: Path, checkpoints: Checkpoints, db: sqlite3.Connection) -> None:
    """Remove secrets that were stored plain from free pages and the log. If that fails, the next start tries again."""
    log.info("rewriting the journal, whose free pages may have secrets", bytes=path.stat().st_size)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:  # with temporary files on disk
            other.execute("PRAGMA wal_autocheckpoint = 0")
            other.execute("VACUUM")
        checkpoints.empty(db)
        db.execute("DELETE FROM meta WHERE name = 'plain'")
    except sqlite3.Error as error:
        advice = "free as much space as the journal has, then restart the engine"
        log.error("free pages of the journal may have secrets", problem=str(error), next_step=advice)


def _read_key(file: Path) -> bytes:
    """Return the key in a file, or nothing if it is missing or empty."""
    if not file.exists():
        return b""
    with file_errors(file):
        check_closed(file, file.stat(), f"{file} has the key of stored secrets")
        text = file.read_bytes().strip()
    with suppress(ValueError):
        if len(key := base64.b64decode(text, validate=True)) in (0, _KEY):
            return key
    raise DataDirectoryUnusable(str(file), "is no key, of 32 bytes in base64: put the right file there")


def _number(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[:7])


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a body; none if it is damaged, which the load of the engine tells."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, TypeError, ValueError):
        return {}


# The library takes 9 MB of memory, which engines without secrets save.


def _encrypt(key: bytes, columns: list[Any], secrets: bytes) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secrets, repr(columns).encode())).decode()


def _decrypt(key: bytes, columns: list[Any], text: str) -> bytes | None:
    """Return the secrets in a text, or None if the key does not decrypt it, or it is empty."""
    if not text:
        return None
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    with suppress(InvalidTag, ValueError):  # a ValueError if the text is damaged
        data = base64.b64decode(text)
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], repr(columns).encode())
    return None
