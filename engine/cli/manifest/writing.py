"""Manifests as TOML text, with comments at secrets."""

from __future__ import annotations

from typing import Any

import tomlkit

from engine.cli.manifest.describing import Variable
from engine.cli.manifest.project import Data


def manifest_text(data: Data, comments: list[str]) -> str:
    """Return the TOML text of a manifest, after lines of comments. Empty tables at its top are left out."""
    document: Any = tomlkit.document()
    for line in comments:
        document.add(tomlkit.comment(line))
    for section, tables in data.items():
        if tables:
            own: Any = tomlkit.table(is_super_table=True)
            for name, fields in tables.items():
                own.add(name, _table(fields))
            document.add(tomlkit.nl())
            document.add(section, own)
    return str(tomlkit.dumps(document))


def _table(fields: Data) -> Any:
    table: Any = tomlkit.table()
    # A key after a table would belong to that table.
    for name, value in sorted(fields.items(), key=lambda field: _is_table(field[1])):
        if isinstance(value, Variable):
            item: Any = tomlkit.string(f"${{{value.name}}}")
            item.comment("secret")
            table.add(name, item)
        elif isinstance(value, dict):
            table.add(name, _table(value))
        elif _is_table(value):
            tables: Any = tomlkit.aot()
            for one in value:
                tables.append(_table(one))
            table.add(name, tables)
        else:
            table.add(name, value)
    return table


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
