"""Page of a function's tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import to_builtins
from msgspec.structs import replace

from engine.errors import InvalidField, InvalidRequest
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import SettingsForm, SettingsPage, Update, digest_of
from engine.http.console.configuration.rows import Row, check_rows, rows_in, rows_of, table_of, with_errors
from engine.http.console.forms import Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.resources.tags import MAX_TAGS, Tags, check_tag


class TagsForm(SettingsForm[Sequence[Row]]):
    """Form of the tags. All are checked before the first request, since the API removes and adds them by two."""

    operation = "ConsoleSaveTags"

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
        removed = f"Removed {', '.join(one['key'] for one in gone)}, and saved nothing else; save again. "
        changes = (("DELETE", "delete", gone, removed), ("POST", "create", added, ""))
        return [
            Update(method=method, target=f"{path}/{action}", body={"tags": tags}, done=done)
            for method, action, tags, done in changes
            if tags
        ]


class TagsPage(SettingsPage[Sequence[Row]]):
    """Page of the tags."""

    operation = "ConsoleTags"
    tab, template = "configuration/tags", "functions/tags.html"

    def __init__(self, frame: FunctionFrame, tags: Tags) -> None:
        super().__init__(frame, [TagsForm(frame, tags)])
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
