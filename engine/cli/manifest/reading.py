"""Reading of a manifest: TOML, variables, checks of every table. Nothing is sent to the engine."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from engine.cli.client import UsageError
from engine.cli.manifest.tables import (
    CONFIGURATION,
    REPLACED,
    AliasTable,
    Function,
    FunctionTable,
    GroupTable,
    LogStreamTable,
    Manifest,
    OwnFields,
    StreamTable,
    Top,
    TopicTable,
    VersionTable,
)
from engine.cli.manifest.variables import Variables
from engine.config.settings import Settings
from engine.config.validation import describe_issue
from engine.model.limits import NAME_RULE
from engine.model.text import MASK
from engine.model.urn import NAME

T = TypeVar("T")


def read_manifest(file: Path, environ: Mapping[str, str]) -> Manifest:
    """Return the manifest in a file.

    Raises UsageError, with the line or the path of the key, if the file cannot be read, is no TOML, or has an unknown
    key or an invalid value.
    """
    try:
        with file.open("rb") as opened:
            table = tomllib.load(opened)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    try:
        return _Reader(file.absolute().parent, Variables(environ)).manifest(table)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


class _Reader:
    def __init__(self, folder: Path, variables: Variables) -> None:
        self._folder, self._variables = folder, variables

    def manifest(self, table: dict[str, Any]) -> Manifest:
        if settings := [name for name in table if name in Settings.__struct_fields__]:
            raise UsageError(
                f"{settings[0]} is a setting of the engine, for serve --config: a manifest declares functions"
            )
        top = self._convert(self._variables.replaced(table), Top, "")
        return Manifest(
            functions={name: self._function(name, one) for name, one in top.functions.items()},
            topics=self._each(top.topics, TopicTable, "topics"),
            streams=self._each(top.streams, StreamTable, "streams"),
            log_groups={name: self._group(name, one) for name, one in top.log_groups.items()},
            secrets=frozenset(self._variables.secrets),
        )

    def _function(self, name: str, table: dict[str, Any]) -> Function:
        path = _joined("functions", name)
        for part in name.split(":", 1):
            if not NAME.fullmatch(part):
                raise UsageError(f"{path}: the name of a function {NAME_RULE}; PACKAGE:NAME names its package, too")
        for field, instead in REPLACED.items():
            if field in table:
                raise UsageError(f"{path}.{field}: use {instead}")
        own: OwnFields = self._convert(table, FunctionTable, path)
        for field in ("environment", "encrypted_environment"):
            for variable, value in table.get(field, {}).items():
                if not isinstance(value, str):
                    raise UsageError(f'{path}.{field}.{variable} is {value!r}: must be text: write "{value}"')
        if own.code is not UNSET and own.code_url is not UNSET:
            raise UsageError(f"{path}: code and code_url exclude each other: name one")
        config = {one: getattr(own, one) for one in CONFIGURATION if getattr(own, one) is not UNSET}
        return Function(
            name=name,
            config=msgspec.to_builtins(config),
            own=own,
            code=self._code(own, path),
            versions=self._each(own.versions, VersionTable, f"{path}.versions"),
            aliases=self._each(own.aliases, AliasTable, f"{path}.aliases"),
        )

    def _code(self, own: OwnFields, path: str) -> Path | None:
        if isinstance(own.code, str):
            found = self._folder / own.code
            if not found.exists():
                raise UsageError(f"{path}.code is {own.code!r}: {found} does not exist")
            return found
        return None

    def _group(self, name: str, table: dict[str, Any]) -> GroupTable:
        path = _joined("log_groups", name)
        streams = table.get("streams", {})
        if isinstance(streams, dict):
            self._each(streams, LogStreamTable, f"{path}.streams")
        return self._convert(table, GroupTable, path)

    def _each(self, tables: dict[str, Any], kind: type[T], path: str) -> dict[str, T]:
        return {name: self._convert(one, kind, _joined(path, name)) for name, one in tables.items()}

    def _convert(self, table: Any, kind: type[T], path: str) -> T:
        try:
            return msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            found = describe_issue(error, table, kind)
            field = f"{path}.{found.field}".strip(".")
            secret = isinstance(found.value, str) and found.value in self._variables.secrets
            value = MASK if secret else found.value
            shown = "" if isinstance(value, dict | list) or value is None else f" is {value!r}"
            raise UsageError(f"{field}{shown}: {found.allowed}") from None


def _joined(path: str, name: str) -> str:
    """Return the path of a key as TOML writes it."""
    bare = name.replace("-", "").replace("_", "")
    return f"{path}.{name}" if bare.isascii() and bare.isalnum() else f'{path}."{name}"'
