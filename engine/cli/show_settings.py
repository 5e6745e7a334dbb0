"""``functiond settings``: list of all settings of the engine, read from the structs that define them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from engine.cli.options import Json
from engine.cli.output import print_json, print_table
from engine.config.settings import Settings

#: Defaults that depend on the machine.
COMPUTED = {"executor.slots": "8 per processor, at least 16"}


class Setting(Struct, frozen=True, kw_only=True):
    name: str
    type: str
    default: str
    variable: str

    @property
    def row(self) -> tuple[str, ...]:
        return (self.name, self.type, self.default, self.variable)


def settings(*, json: Json = False) -> None:
    """List every setting with its default."""
    listed = list(all_settings())
    if json:
        print_json(msgspec.to_builtins(listed))
    else:
        print_table(("SETTING", "TYPE", "DEFAULT", "ENVIRONMENT VARIABLE"), (setting.row for setting in listed))


def all_settings() -> Iterator[Setting]:
    """Yield all settings of the engine in the order of definition, with dotted names such as ``http.port``."""
    return (setting for setting, _ in settings_of(Settings, ""))


def settings_of(section: type[Struct], prefix: str) -> Iterator[tuple[Setting, type[Struct]]]:
    """Yield the settings that the fields of a struct, and of structs nested in it, define, each with its struct.

    Put ``prefix`` before each name.
    """
    shape = inspect.type_info(section)
    assert isinstance(shape, inspect.StructType)
    for field in shape.fields:
        name = f"{prefix}{field.name}"
        if isinstance(field.type, inspect.StructType):
            yield from settings_of(field.type.cls, f"{name}.")
        elif isinstance(field.type, inspect.VarTupleType) and isinstance(field.type.item_type, inspect.StructType):
            # Credentials have no environment variable, because the environment is easily exposed.
            parts = ", ".join(part.name for part in field.type.item_type.fields)
            yield Setting(name=f"{name}.<entry>", type=f"tables with {parts}", default="none", variable=""), section
        elif isinstance(field.type, inspect.DictType) and isinstance(field.type.value_type, inspect.StructType):
            yield from settings_of(field.type.value_type.cls, f"{name}.<entry>.")
        elif isinstance(field.type, inspect.DictType):
            kind = "table of a plugin" if section is Settings else _kind(field.type.value_type)
            entry = "<kind>" if section is Settings else "<entry>"
            yield Setting(name=f"{name}.{entry}", type=kind, default="none", variable=_variable(name)), section
        else:
            default = COMPUTED.get(name) or _shown(field.default)
            yield Setting(name=name, type=_kind(field.type), default=default, variable=_variable(name)), section


def _variable(name: str) -> str:
    return "FUNCTIOND_" + name.upper().replace(".", "__")


def _shown(value: Any) -> str:
    if value is NODEFAULT or value in ("", ()):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, int) and value >= 1 << 18:
        return f"{value} ({_size(value)})" if value % (1 << 18) == 0 else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size(value: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def _kind(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"whole number{_range(kind.ge, kind.le)}"
        case inspect.FloatType():
            return f"number{_range(kind.ge, kind.le)}"
        case inspect.LiteralType():
            return " or ".join(map(str, kind.values)) if len(kind.values) < 3 else ", ".join(map(str, kind.values))
        case inspect.VarTupleType() | inspect.TupleType():
            return "comma-separated list"
        case inspect.UnionType():
            return "comma-separated list, or a table of lists"
        case _:
            return "text"


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f", {low:.10g} to {high:.10g}" if high is not None else f", {low:.10g} or more"
