"""Page of a function's tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from msgspec import to_builtins
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.rows import Row, is_wrong, rows_in, rows_of, table_of, with_errors
from engine.http.console.configuration.settings import CHANGED, digest_of, errors_beside, is_stale
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.resources.tags import MAX_TAGS, Tags, check_tag

TAB = "configuration/tags"
PATH = f"/{TAB}"


class TagsPage:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, tags: Tags) -> None:
        self._frame, self._api, self._tags = frame, api, tags

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + PATH: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {FUNCTION + PATH: self.save}

    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        return await self._show(call, function, rows_of(dict(sorted(self._tags.of(function).tags.items()))))

    async def save(self, call: Call, form: Form) -> Reply:
        """Remove and add tags. All are checked first, since the API does this by two requests."""
        function = self._frame.function_of(call)
        old, rows = self._tags.of(function).tags, [_checked(row) for row in with_errors(rows_in(form))]
        if is_stale(form, old):
            return await self._show(call, function, rows, {WHOLE: CHANGED})
        new = table_of(rows)
        if is_wrong(rows):
            return await self._show(call, function, rows, {"rows": "wrong"})
        if len(new) > MAX_TAGS:
            return await self._show(call, function, rows, {WHOLE: f"A function may have {MAX_TAGS} tags; remove some."})
        gone = [key for key in old if key not in new]
        added = {key: value for key, value in new.items() if old.get(key) != value}
        if not gone and not added:
            return see_other(self._frame.page_path(function, PATH), "Nothing was changed.")
        path = f"/v2/{function.project}/functions/{quote(self._frame.urn_of(function), safe='')}/tags"
        try:
            if gone:
                await self._api.send(call, "DELETE", f"{path}/delete", {"tags": [{"key": key} for key in gone]})
            if added:
                body = {"tags": [{"key": key, "value": value} for key, value in added.items()]}
                await self._api.send(call, "POST", f"{path}/create", body)
        except FunctiondError as error:
            return await self._show(call, function, rows, errors_beside(error, ()))
        return see_other(self._frame.page_path(function, PATH), "Saved.")

    async def _show(
        self, call: Call, function: Function, rows: Sequence[Row], errors: Mapping[str, str] | None = None
    ) -> Reply:
        stored = self._tags.of(function)
        return await self._frame.show(
            call,
            "functions/tags.html",
            tab=TAB,
            live=False,
            http_status=400 if errors else 200,
            rows=value_shown(call, to_builtins(rows)),
            sys_tags=value_shown(call, stored.sys_tags),
            most=MAX_TAGS,
            errors=errors or {},
            seen=digest_of(stored.tags),
        )


def _checked(row: Row) -> Row:
    """Return the row with an error if the API would refuse the tag."""
    try:
        check_tag(row.key, row.value)
    except InvalidField as error:
        part = "The name" if error.field.endswith("key") else "The value"
        return row if row.error else replace(row, error=f"{part} {error.allowed}")
    return row
