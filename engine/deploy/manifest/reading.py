"""Reading of a manifest: TOML, variables, checks of every table. Nothing is sent to the engine."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from functiond.app import HttpPath
from msgspec import UNSET, Meta, Struct, UnsetType

from engine.config.settings import Settings
from engine.config.validation import describe_issue
from engine.deploy.packaging import Build
from engine.errors import UsageError
from engine.http.api.async_settings import CustomLog
from engine.http.api.controls import ControlsBody
from engine.http.api.function_shapes import ConfigChanges
from engine.http.api.versions import AliasBody
from engine.model import AsyncSettings
from engine.model.limits import EVENT_AGES, NAME_RULE, Description, EventAge, Label, Link, Retries
from engine.model.retry_rules import RetryRule
from engine.model.text import MASK
from engine.model.urn import LATEST, NAME

#: Fields of the API that a manifest has in another form, by the key to use instead.
REPLACED = {
    "func_name": "the name of the table",
    "package": 'the name of the table, "PACKAGE:NAME"',
    "user_data": "environment",
    "encrypted_user_data": "encrypted_environment",
    "func_mounts": "mount_config",
    "func_code": "code",
}
_SETTINGS = {field.name: field for field in msgspec.structs.fields(ConfigChanges) if field.name not in REPLACED}
CONFIGURATION = tuple(_SETTINGS)
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
T = TypeVar("T")


class DestinationTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    destination: Label
    param: dict[str, Any] = {}


class DestinationsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    on_success: DestinationTable | None = None
    on_failure: DestinationTable | None = None


class AsyncTable(CustomLog, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asynchronous settings as a whole: absent fields have the defaults of the API, except for the age."""

    max_async_event_age_in_seconds: EventAge = EVENT_AGES[1]
    max_async_retry_attempts: Retries = AsyncSettings().max_retries
    destination_config: DestinationsTable = DestinationsTable()
    enable_async_status_log: bool = False
    retry_rules: tuple[RetryRule, ...] = ()


class TriggerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    trigger_type_code: str
    event_data: dict[str, Any]
    trigger_status: Literal["ACTIVE", "DISABLED"] | UnsetType = UNSET
    event_type_code: str | UnsetType = UNSET
    qualifier: str = LATEST  #: a version, or ``!`` and an alias


class VersionTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Version to publish from the latest state of the function, unless the function has one of this name."""

    description: Description = ""
    async_invoke_config: AsyncTable | UnsetType = UNSET


class AliasTable(AliasBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TopicTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    display_name: Annotated[str, Meta(max_length=192)] | UnsetType = UNSET


class StreamTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data stream (DIS). ``stream_type`` cannot be changed later."""

    partition_count: Annotated[int, Meta(ge=1)] = 1
    data_duration: Annotated[int, Meta(ge=24, le=72)] | UnsetType = UNSET
    data_type: Literal["BLOB", "JSON", "CSV", "FILE"] | UnsetType = UNSET
    stream_type: Literal["COMMON", "ADVANCED"] | UnsetType = UNSET


class LogStreamTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ttl_in_days: Annotated[int, Meta(ge=1, le=365)] | UnsetType = UNSET


class GroupTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log group (LTS)."""

    ttl_in_days: Annotated[int, Meta(ge=1, le=365)]
    streams: dict[str, LogStreamTable] = {}


class Top(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tables at the top of a manifest."""

    functions: dict[str, dict[str, Any]] = {}
    topics: dict[str, dict[str, Any]] = {}
    streams: dict[str, dict[str, Any]] = {}
    log_groups: dict[str, dict[str, Any]] = {}


class OwnFields(Struct, frozen=True, kw_only=True):
    """Fields of a function's table besides its configuration."""

    code: str | UnsetType = UNSET  #: folder, file or zip package, relative to the manifest
    code_url: Link | UnsetType = UNSET  #: package in an object store
    install: bool = True  #: install the dependencies that the folder names
    environment: dict[str, Any] | UnsetType = UNSET
    encrypted_environment: dict[str, Any] | UnsetType = UNSET
    async_invoke_config: AsyncTable | UnsetType = UNSET
    controls: ControlsBody | UnsetType = UNSET
    triggers: list[TriggerTable] = []
    http: list[HttpPath] = []  #: short for APIG triggers
    versions: dict[str, dict[str, Any]] = {}
    aliases: dict[str, dict[str, Any]] = {}


#: Table of a function: its own fields, and those of the configuration.
FunctionTable: Any = msgspec.defstruct(
    "FunctionTable",
    [(field.encode_name, field.type, UNSET) for field in _SETTINGS.values()],
    bases=(OwnFields,),
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Function(Struct, frozen=True, kw_only=True):
    """Function of a manifest, or of an app, checked."""

    name: str  #: ``name``, or ``package:name``
    config: dict[str, Any]  #: fields of the API that the manifest names, except environments
    own: OwnFields
    code: Path | None  #: absolute
    versions: dict[str, VersionTable]
    aliases: dict[str, AliasTable]
    built: Build | None = None  #: package of an app, which is made before the plan

    @property
    def environments(self) -> dict[str, dict[str, str]]:
        """Environments that the manifest names, by their fields in the API."""
        given = {"user_data": self.own.environment, "encrypted_user_data": self.own.encrypted_environment}
        return {field: variables for field, variables in given.items() if isinstance(variables, dict)}


class Manifest(Struct, frozen=True, kw_only=True):
    functions: dict[str, Function]
    topics: dict[str, TopicTable]
    streams: dict[str, StreamTable]
    log_groups: dict[str, GroupTable]
    secrets: frozenset[str]  #: texts that contain values of variables
    app: str = ""  #: to which its functions belong, unless their ``functiond.app`` names another; empty: to none


class Variables:
    """Replacement of references. ``secrets`` collects the texts that contain values of variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.secrets: set[str] = set()
        self._environ = environ

    def replaced(self, value: Any, path: str = "") -> Any:
        """Return a copy of TOML data in which references are replaced, at any depth.

        ``$${`` stands for the characters ``${``. Raises UsageError, with the path of the key, if a variable is not set.
        """
        if isinstance(value, dict):
            return {name: self.replaced(item, f"{path}.{name}" if path else name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.replaced(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, path)
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise UsageError(f"{path} is {value}, which JSON does not have: write it as text, in quotes")
        return value

    def _text(self, text: str, path: str) -> str:
        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return "${"
            if not _NAME.fullmatch(name) or not match[0].endswith("}"):
                raise UsageError(
                    f"{path} has {match[0]}: write ${{NAME}} for a variable, or $${{ for the characters ${{"
                )
            if name not in self._environ:
                raise UsageError(f"{path} needs the environment variable {name}, which is not set")
            return self._environ[name]

        made = _REFERENCE.sub(value_of, text)
        if any(match[1] is not None for match in _REFERENCE.finditer(text)):
            self.secrets.add(made)
        return made


def escaped(text: str) -> str:
    """Return a text that stands for itself in a manifest."""
    return text.replace("${", "$${")


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
        variables = Variables(environ)
        return ManifestReader(file.absolute().parent, variables).manifest(variables.replaced(table))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


class ManifestReader:
    """Checks of tables whose references are replaced. ``folder`` is that of relative paths."""

    def __init__(self, folder: Path, variables: Variables) -> None:
        self._folder, self._variables = folder, variables

    def manifest(self, table: dict[str, Any]) -> Manifest:
        if settings := [name for name in table if name in Settings.__struct_fields__]:
            raise UsageError(
                f"{settings[0]} is a setting of the engine, for serve --config: a manifest declares functions"
            )
        top = self._convert(table, Top, "")
        return Manifest(
            functions={name: self._function(name, function) for name, function in top.functions.items()},
            topics=self._each(top.topics, TopicTable, "topics"),
            streams=self._each(top.streams, StreamTable, "streams"),
            log_groups={name: self._group(name, group) for name, group in top.log_groups.items()},
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
        config = {key: getattr(own, key) for key in CONFIGURATION if getattr(own, key) is not UNSET}
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
            code = self._folder / own.code
            if not code.exists():
                raise UsageError(f"{path}.code is {own.code!r}: {code} does not exist")
            return code
        return None

    def _group(self, name: str, table: dict[str, Any]) -> GroupTable:
        path = _joined("log_groups", name)
        streams = table.get("streams", {})
        if isinstance(streams, dict):
            self._each(streams, LogStreamTable, f"{path}.streams")
        return self._convert(table, GroupTable, path)

    def _each(self, tables: dict[str, Any], kind: type[T], path: str) -> dict[str, T]:
        return {name: self._convert(table, kind, _joined(path, name)) for name, table in tables.items()}

    def _convert(self, table: Any, kind: type[T], path: str) -> T:
        try:
            return msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            issue = describe_issue(error, table, kind)
            field = f"{path}.{issue.field}".strip(".")
            secret = isinstance(issue.value, str) and issue.value in self._variables.secrets
            value = MASK if secret else issue.value
            shown = "" if isinstance(value, dict | list) or value is None else f" is {value!r}"
            raise UsageError(f"{field}{shown}: {issue.allowed}") from None


def _joined(path: str, name: str) -> str:
    """Return the path of a key as TOML writes it."""
    bare = name.replace("-", "").replace("_", "")
    return f"{path}.{name}" if bare.isascii() and bare.isalnum() else f'{path}."{name}"'
