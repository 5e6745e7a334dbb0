"""Page of a function's environment variables, plain and encrypted.

Values of encrypted variables are never sent to a browser. An empty value of a row that exists keeps the stored one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.functions.function_rules import VARIABLES, VARIABLES_SIZE
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.rows import Row, is_wrong, rows_in, rows_of, with_errors
from engine.http.console.configuration.settings import CHANGED, digest_of, errors_beside, is_stale, lines
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import sees_secrets
from engine.model import Function

TAB = "configuration/environment"
PATH = f"/{TAB}"
PLAIN, ENCRYPTED = "user_data", "encrypted_user_data"
PREFIX = {PLAIN: "", ENCRYPTED: "e-"}  #: of the names of form fields


class _Form(Struct, frozen=True, kw_only=True):
    """Rows as typed, and the variables that they make, by the API's name of the list."""

    rows: Mapping[str, Sequence[Row]]
    variables: Mapping[str, dict[str, str]]


class EnvironmentPage:
    def __init__(self, frame: FunctionFrame, api: ApiRequests) -> None:
        self._frame, self._api = frame, api

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + PATH: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {FUNCTION + PATH: self.save}

    async def show(self, call: Call) -> Reply:
        function = self._frame.version_of(call)
        return await self._show(call, function, _rows(function))

    async def save(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        sent = _read(function, form)
        if is_stale(form, _stored(function)):
            return await self._show(call, function, sent.rows, {WHOLE: CHANGED})
        if any(is_wrong(rows) for rows in sent.rows.values()):
            return await self._show(call, function, sent.rows, {"rows": "wrong"})
        body = {
            name: msgspec.json.encode(variables).decode() if variables else ""
            for name, variables in sent.variables.items()
            if list(variables.items()) != list(getattr(function, name).items())
        }
        if not body:
            return see_other(self._frame.page_path(function, PATH), "Nothing was changed.")
        try:
            await self._api.send(call, "PATCH", self._frame.api_path(function, "/config"), body)
        except FunctiondError as error:
            rows, errors = _marked(sent.rows, error)
            return await self._show(call, function, rows, errors)
        return see_other(self._frame.page_path(function, PATH), "Saved. New instances have these variables.")

    async def _show(
        self,
        call: Call,
        function: Function,
        rows: Mapping[str, Sequence[Row]],
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        data: dict[str, Any] = {"rows": {PLAIN: (), ENCRYPTED: ()}, "seen": "", "sees": False}
        if sees_secrets(call):
            data = {"rows": rows, "seen": digest_of(_stored(function)), "sees": True}
        return await self._frame.show(
            call,
            "functions/environment.html",
            tab=TAB,
            live=False,
            http_status=400 if errors else 200,
            viewed=function,
            errors=errors or {},
            most=VARIABLES,
            size=VARIABLES_SIZE,
            used={
                name: sum(len(key) + len(value) for key, value in table.items()) for name, table in _stored(function)
            },
            **data,
        )


def _stored(function: Function) -> tuple[tuple[str, dict[str, str]], ...]:
    return (PLAIN, function.user_data), (ENCRYPTED, function.encrypted_user_data)


def _rows(function: Function) -> dict[str, list[Row]]:
    hidden = dict.fromkeys(function.encrypted_user_data, "")
    return {PLAIN: rows_of(function.user_data), ENCRYPTED: rows_of(hidden)}


def _read(function: Function, form: Form) -> _Form:
    rows = {name: with_errors(rows_in(form, PREFIX[name])) for name, _ in _stored(function)}
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
    return _Form(rows=rows, variables=variables)


def _marked(
    rows: Mapping[str, Sequence[Row]], error: FunctiondError
) -> tuple[Mapping[str, Sequence[Row]], Mapping[str, str]]:
    """Return the rows with the error at the variable that it names, and errors by field."""
    if not isinstance(error, InvalidField):
        return rows, errors_beside(error, PREFIX)
    marked = {
        name: [
            Row(key=one.key, value=one.value, old=one.old, error=error.allowed)
            if (name, one.key) == (error.field, error.value)
            else one
            for one in some
        ]
        for name, some in rows.items()
    }
    found = any(is_wrong(some) for some in marked.values())
    return marked, {"rows": error.allowed} if found else {error.field: f"{error.value}: {error.allowed}"}
