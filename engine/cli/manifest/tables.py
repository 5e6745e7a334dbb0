"""Tables of a manifest. Their keys are fields of the API, except ``code``, ``environment`` and few others.

``UNSET`` means that the manifest does not name a field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engine.http.api.async_settings import CustomLog
from engine.http.api.controls import ControlsBody
from engine.http.api.function_shapes import ConfigChanges
from engine.http.api.versions import AliasBody
from engine.model import AsyncSettings
from engine.model.limits import EVENT_AGES, Description, EventAge, Label, Link, Retries
from engine.model.retry_rules import RetryRule
from engine.model.urn import LATEST

#: Fields of the API that a manifest has in another form, by the key to use instead.
REPLACED = {
    "func_name": "the name of the table",
    "package": 'the name of the table, "PACKAGE:NAME"',
    "user_data": "environment",
    "encrypted_user_data": "encrypted_environment",
    "func_mounts": "mount_config",
    "func_code": "code",
}


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
    versions: dict[str, dict[str, Any]] = {}
    aliases: dict[str, dict[str, Any]] = {}


_SETTINGS = {one.name: one for one in msgspec.structs.fields(ConfigChanges) if one.name not in REPLACED}
CONFIGURATION = tuple(_SETTINGS)
#: Table of a function: its own fields, and those of the configuration.
FunctionTable: Any = msgspec.defstruct(
    "FunctionTable",
    [(one.encode_name, one.type, UNSET) for one in _SETTINGS.values()],
    bases=(OwnFields,),
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Function(Struct, frozen=True, kw_only=True):
    """Function of a manifest, checked."""

    name: str  #: ``name``, or ``package:name``
    config: dict[str, Any]  #: fields of the API that the manifest names
    own: OwnFields
    code: Path | None  #: absolute
    versions: dict[str, VersionTable]
    aliases: dict[str, AliasTable]


class Manifest(Struct, frozen=True, kw_only=True):
    functions: dict[str, Function]
    topics: dict[str, TopicTable]
    streams: dict[str, StreamTable]
    log_groups: dict[str, GroupTable]
    secrets: frozenset[str]  #: texts that contain values of variables
