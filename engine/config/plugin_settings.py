"""Settings table of a plugin, read from a TOML file or the environment.

A list in an environment variable is written as comma-separated text.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, inspect

from engine.config.validation import describe_issue
from engine.errors import SettingsError


def read_table(name: str, table: Any, kind: type[Struct]) -> Any:
    """Return ``table`` converted to the struct type ``kind``.

    Raises SettingsError if the table is invalid, or has a setting that the mapping ``REPLACED`` of ``kind`` lists with
    the advice for its users.
    """
    for old, advice in getattr(kind, "REPLACED", {}).items():
        if isinstance(table, dict) and old in table:
            raise SettingsError(f"plugins.{name}.{old} has been replaced: {advice}")
    try:
        return msgspec.convert(_with_lists(table, inspect.type_info(kind)), kind, strict=False)
    except msgspec.ValidationError as error:
        found = describe_issue(error, table, kind)  # the value may be a secret
        raise SettingsError(f"{'.'.join(filter(None, ('plugins', name, found.field)))}: {found.allowed}") from None


def _with_lists(value: Any, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        types = {field.encode_name: field.type for field in kind.fields}
        return {name: _with_lists(one, types[name]) if name in types else one for name, one in value.items()}
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _with_lists(one, kind.value_type) for name, one in value.items()}
    if isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
