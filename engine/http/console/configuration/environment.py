"""Page of a function's environment variables, plain and encrypted.

Values of encrypted variables are never sent to a browser. An empty value of a row that exists keeps the stored one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import FunctiondError, InvalidField
from engine.functions.function_rules import VARIABLES, VARIABLES_SIZE
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import SettingsForm, SettingsPage, Update, digest_of, errors_beside
from engine.http.console.configuration.rows import ROWS, Row, check_rows, rows_in, rows_of, with_errors
from engine.http.console.forms import Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.struct_forms import lines
from engine.http.console.visibility import sees_secrets
from engine.model import Function

PLAIN, ENCRYPTED = "user_data", "encrypted_user_data"
PREFIX = {PLAIN: "", ENCRYPTED: "e-"}  #: of the names of form fields


class Variables(Struct, frozen=True, kw_only=True):
    """Rows as typed, and the variables that they make, by the API's name of the list."""

    rows: Mapping[str, Sequence[Row]]
    variables: Mapping[str, dict[str, str]]


class EnvironmentForm(SettingsForm[Variables]):
    """Form of both lists of variables."""

    operation = "ConsoleSaveEnvironment"
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
                replace(one, error=error.allowed) if (name, one.key) == (error.field, error.value) else one
                for one in some
            ]
            for name, some in typed.rows.items()
        }
        if rows != typed.rows:
            return replace(typed, rows=rows), {ROWS: error.allowed}
        return typed, {error.field: f"{error.value}: {error.allowed}"}


class EnvironmentPage(SettingsPage[Variables]):
    """Page of the variables, which only those roles see that see secrets."""

    operation = "ConsoleEnvironment"
    tab, template, versioned = "configuration/environment", "functions/environment.html", True

    def __init__(self, frame: FunctionFrame) -> None:
        super().__init__(frame, [EnvironmentForm(frame)])

    def data(self, call: Call, function: Function, typed: Variables | None) -> Mapping[str, Any]:
        stored, sees = _stored(function), sees_secrets(call)
        rows = typed.rows if typed is not None else _rows(function)
        return {
            "viewed": function,
            "most": VARIABLES,
            "size": VARIABLES_SIZE,
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
