"""Rows of names and values in forms, such as environment variables and tags.

Each row has the fields ``key``, ``value`` and ``old``, its name before; an empty ``old`` is a new row. Without scripts,
spare rows at the end take new entries, and each stored row has a checkbox ``remove``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from engine.errors import InvalidField
from engine.http.console.forms import Form

ROWS = "rows"  #: field of an error that stands beside rows


class Row(Struct, frozen=True, kw_only=True):
    key: str
    value: str
    old: str = ""  #: name when the page was shown; empty: a new row
    error: str = ""


def rows_of(table: Mapping[str, str]) -> list[Row]:
    return [Row(key=key, value=value, old=key) for key, value in table.items()]


def rows_in(form: Form, prefix: str = "") -> list[Row]:
    """Return the rows of a form. Empty new rows are left out, and those that the field ``remove`` names."""
    typed = form.rows(prefix, ("key", "value", "old"))
    found = [Row(key=one["key"].strip(), value=one["value"], old=one["old"].strip()) for one in typed]
    removed = {"", *form.all(f"{prefix}remove")}
    return [row for row in found if row.old not in removed or (not row.old and (row.key or row.value))]


def with_errors(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with an error at each that has no name, or the name of an earlier one."""
    checked: list[Row] = []
    for row in rows:
        known = any(row.key == other.key for other in checked)
        error = f"{row.key} is given twice; remove one" if known else ""
        if not row.key:
            error = f"needs a name; remove the row to delete {row.old}" if row.old else "needs a name"
        checked.append(Row(key=row.key, value=row.value, old=row.old, error=error))
    return checked


def check_rows(rows: Iterable[Row]) -> None:
    """Raise InvalidField if a row has an error."""
    if any(row.error for row in rows):
        raise InvalidField(ROWS, None, "correct the marked rows")


def table_of(rows: Iterable[Row]) -> dict[str, str]:
    return {row.key: row.value for row in rows}
