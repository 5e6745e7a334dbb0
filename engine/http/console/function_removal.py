"""Page that deletes a function, after its reader has seen what goes with it and has typed its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form, errors_of
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_load import FunctionLoad
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION, PROJECT
from engine.resources.triggers import Triggers


class RemovalPage:
    def __init__(
        self, frame: FunctionFrame, api: ApiRequests, catalog: Catalog, triggers: Triggers, load: FunctionLoad
    ) -> None:
        self._frame, self._api, self._catalog, self._triggers, self._load = frame, api, catalog, triggers, load

    def pages(self) -> Mapping[str, Handler]:
        return {f"{FUNCTION}/delete": self._show}

    def actions(self) -> Mapping[str, Action]:
        return {f"{FUNCTION}/delete": self.delete}

    async def delete(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        try:
            if form.text("name") != function.name:
                raise InvalidField("name", form.text("name"), f"type {function.name} to confirm")
            await self._api.send(call, "DELETE", self._frame.api_path(function))
        except FunctiondError as error:
            return await self._show(call, form.text("name"), errors_of(error))
        return see_other(PROJECT.format(project_id=call.project) + "/functions", f"Deleted {function.name}.")

    async def _show(self, call: Call, typed: str = "", errors: Mapping[str, str] | None = None) -> Reply:
        function_id = self._frame.function_of(call).function_id
        triggers = [one for one in self._triggers.in_project(call.project) if one.function_id == function_id]
        return await self._frame.show(
            call,
            "functions/delete.html",
            tab="delete",
            triggers=triggers,
            versions=len(self._catalog.versions(function_id)) - 1,
            aliases=len(self._catalog.aliases(function_id)),
            load=self._load.of(function_id),
            typed=typed,
            errors=defaultdict(str, errors or {}),
        )
