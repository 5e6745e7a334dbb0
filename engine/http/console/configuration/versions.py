"""Page of a function's versions and aliases, on which versions are published and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.functions.aliases import MAX_ALIASES
from engine.functions.catalog import Catalog
from engine.functions.versions import MAX_VERSIONS
from engine.http.api.routing import Call, Handler
from engine.http.api.versions import PublishBody
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.limits import limits_of
from engine.http.console.configuration.settings import Setting, errors_beside
from engine.http.console.forms import Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.model.urn import LATEST

TAB = "configuration/versions"
PATH = f"/{TAB}"
_PUBLISH = (
    Setting(
        name="version",
        label="Name",
        help="Letters, digits, - _ and . Empty means a name made from the time.",
        placeholder="v20260131-180000",
    ),
    Setting(name="description", label="Description", limits=limits_of(PublishBody, "description")),
)


class VersionsPage:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, catalog: Catalog) -> None:
        self._frame, self._api, self._catalog = frame, api, catalog

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + PATH: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {FUNCTION + PATH: self.publish, f"{FUNCTION}{PATH}/delete": self.delete}

    async def show(self, call: Call) -> Reply:
        return await self._show(call, dict.fromkeys((one.name for one in _PUBLISH), ""))

    async def publish(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        values = {one.name: form.text(one.name) for one in _PUBLISH}
        try:
            reply = await self._api.send(call, "POST", self._frame.api_path(function, "/versions"), values)
        except FunctiondError as error:
            return await self._show(call, values, errors_beside(error, values))
        version = reply.read(dict[str, object])["version"]
        return see_other(self._frame.page_path(function, PATH), f"Published version {version}.")

    async def delete(self, call: Call, form: Form) -> Reply:
        function, version = self._frame.function_of(call), form.text("version") or LATEST
        path = self._frame.api_path(function, quote(f":{version}", safe=""))
        try:
            await self._api.send(call, "DELETE", path)
        except FunctiondError as error:
            return await self._show(call, dict.fromkeys((one.name for one in _PUBLISH), ""), errors_beside(error, ()))
        return see_other(self._frame.page_path(function, PATH), f"Deleted version {version}.")

    async def _show(self, call: Call, values: Mapping[str, str], errors: Mapping[str, str] | None = None) -> Reply:
        function = self._frame.function_of(call)
        latest, *published = self._catalog.versions(function.function_id)
        return await self._frame.show(
            call,
            "functions/versions.html",
            tab=TAB,
            versions=[latest, *reversed(published)],
            aliases=self._catalog.aliases(function.function_id),
            most_versions=MAX_VERSIONS,
            most_aliases=MAX_ALIASES,
            settings=_PUBLISH,
            values=values,
            errors=errors or {},
        )
