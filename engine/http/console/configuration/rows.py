"""Pages whose forms have rows of names and values: environment variables, plain and encrypted, and tags.

Each row has the fields ``key``, ``value`` and ``old``, its name before; an empty ``old`` is a new row. Without scripts,
spare rows at the end take new entries, and each stored row has a checkbox ``remove``.

Values of encrypted variables are never sent to a browser. An empty value of a row that exists keeps the stored one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from engine.errors import FunctiondError, InvalidField, InvalidRequest
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import SettingsForm, SettingsPage, Update, digest_of, errors_beside
from engine.http.console.forms import Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.struct_forms import lines
from engine.http.console.visibility import sees_secrets, value_shown
from engine.model import Function
from engine.resources.tags import MAX_TAGS, Tags, check_tag

ROWS = "rows"  #: field of an error that stands beside rows
PLAIN, ENCRYPTED = "user_data", "encrypted_user_data"
PREFIX = {PLAIN: "", ENCRYPTED: "e-"}  #: of the names of form fields with variables


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
    rows = [Row(key=row["key"].strip(), value=row["value"], old=row["old"].strip()) for row in typed]
    removed = {"", *form.all(f"{prefix}remove")}
    return [row for row in rows if row.old not in removed or (not row.old and (row.key or row.value))]


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


class Variables(Struct, frozen=True, kw_only=True):
    """Rows as typed, and the variables that they make, by the API's name of the list."""

    rows: Mapping[str, Sequence[Row]]
    variables: Mapping[str, dict[str, str]]


class EnvironmentForm(SettingsForm[Variables]):
    """Form of both lists of variables."""

    note = "Saved. New instances have these variables."

    def shown(self, function: Function) -> object:
        return _stored(function)

    def read(self, function: Function, form: Form) -> Variables:
        rows = {name: with_errors(rows_in(form, PREFIX[name])) for name in PREFIX}
        plain, encrypted = function.user_data, function.encrypted_user_data
        variables = {
            # A browser changes line breaks, so a value that differs in them only is the stored one.
            PLAIN: {
                row.key: plain[row.old] if row.old in plain and lines(plain[row.old]) == row.value else row.value
                for row in rows[PLAIN]
            },
            ENCRYPTED: {
                row.key: encrypted[row.old] if row.old in encrypted and not row.value else row.value
                for row in rows[ENCRYPTED]
            },
        }
        return Variables(rows=rows, variables=variables)

    def updates(self, function: Function, typed: Variables) -> Sequence[Update]:
        check_rows(row for rows in typed.rows.values() for row in rows)
        body = {
            name: msgspec.json.encode(variables).decode() if variables else ""
            for name, variables in typed.variables.items()
            if list(variables.items()) != list(getattr(function, name).items())
        }
        target = self._frame.api_path(function, "/config")
        return [Update(method="PATCH", target=target, body=body)] if body else []

    def explain(self, typed: Variables, error: FunctiondError) -> tuple[Variables, Mapping[str, str]]:
        """Return the rows with the error at the variable that it names, and errors by field."""
        if not isinstance(error, InvalidField) or error.field == ROWS:
            return typed, errors_beside(error, (ROWS, *PREFIX))
        rows = {
            name: [
                replace(row, error=error.allowed) if (name, row.key) == (error.field, error.value) else row
                for row in some
            ]
            for name, some in typed.rows.items()
        }
        if rows != typed.rows:
            return replace(typed, rows=rows), {ROWS: error.allowed}
        return typed, {error.field: f"{error.value}: {error.allowed}"}


class EnvironmentPage(SettingsPage[Variables]):
    """Page of the variables, which only those roles see that see secrets."""

    operation, actions = "ConsoleEnvironment", {"ConsoleSaveEnvironment": ""}
    tab, template, versioned = "configuration/environment", "functions/environment.html", True

    def __init__(self, frame: FunctionFrame) -> None:
        super().__init__(frame, EnvironmentForm(frame))

    def data(self, call: Call, function: Function, typed: Variables | None) -> Mapping[str, Any]:
        stored, sees = _stored(function), sees_secrets(call)
        rows = typed.rows if typed is not None else _rows(function)
        return {
            "viewed": function,
            "most": self._frame.limits.variables,
            "size": self._frame.limits.variables_size,
            "used": {name: sum(len(key) + len(value) for key, value in table.items()) for name, table in stored},
            "rows": rows if sees else {PLAIN: (), ENCRYPTED: ()},
            "seen": digest_of(stored) if sees else "",
            "sees": sees,
        }


def _stored(function: Function) -> tuple[tuple[str, dict[str, str]], ...]:
    return (PLAIN, function.user_data), (ENCRYPTED, function.encrypted_user_data)


def _rows(function: Function) -> dict[str, list[Row]]:
    hidden = dict.fromkeys(function.encrypted_user_data, "")
    return {PLAIN: rows_of(function.user_data), ENCRYPTED: rows_of(hidden)}


class TagsForm(SettingsForm[Sequence[Row]]):
    """Form of the tags. All are checked before the first request, since the API removes and adds them by two."""

    def __init__(self, frame: FunctionFrame, tags: Tags) -> None:
        super().__init__(frame)
        self._tags = tags

    def shown(self, function: Function) -> object:
        return self._tags.of(function).tags

    def read(self, function: Function, form: Form) -> Sequence[Row]:
        return [_checked(row) for row in with_errors(rows_in(form))]

    def updates(self, function: Function, typed: Sequence[Row]) -> Sequence[Update]:
        check_rows(typed)
        old, new = self._tags.of(function).tags, table_of(typed)
        if len(new) > MAX_TAGS:
            raise InvalidRequest(f"A function may have {MAX_TAGS} tags; remove some.")
        gone = [{"key": key} for key in old if key not in new]
        added = [{"key": key, "value": value} for key, value in new.items() if old.get(key) != value]
        path = f"/v2/{function.project}/functions/{quote(self._frame.urn_of(function), safe='')}/tags"
        removed = f"Removed {', '.join(tag['key'] for tag in gone)}, and saved nothing else; save again. "
        changes = (("DELETE", "delete", gone, removed), ("POST", "create", added, ""))
        return [
            Update(method=method, target=f"{path}/{action}", body={"tags": tags}, done=done)
            for method, action, tags, done in changes
            if tags
        ]


class TagsPage(SettingsPage[Sequence[Row]]):
    """Page of the tags."""

    operation, actions = "ConsoleTags", {"ConsoleSaveTags": ""}
    tab, template = "configuration/tags", "functions/tags.html"

    def __init__(self, frame: FunctionFrame, tags: Tags) -> None:
        super().__init__(frame, TagsForm(frame, tags))
        self._tags = tags

    def data(self, call: Call, function: Function, typed: Sequence[Row] | None) -> Mapping[str, Any]:
        stored = self._tags.of(function)
        rows = rows_of(dict(sorted(stored.tags.items()))) if typed is None else typed
        return {
            "rows": value_shown(call, to_builtins(rows)),
            "sys_tags": value_shown(call, stored.sys_tags),
            "most": MAX_TAGS,
            "seen": digest_of(stored.tags),
        }


def _checked(row: Row) -> Row:
    """Return the row with an error if the API would refuse the tag."""
    try:
        check_tag(row.key, row.value)
    except InvalidField as error:
        part = "The name" if error.field.endswith("key") else "The value"
        return row if row.error else replace(row, error=f"{part} {error.allowed}")
    return row
