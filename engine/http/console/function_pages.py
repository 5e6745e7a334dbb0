"""Pages of one function: frame with its tabs, and its pause.

Each tab is a page of its own. A tab names the template and the last part of its path; its page family shows it by
``FunctionFrame.show``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.http.api.routing import BASE, Call, Handler, own_urn
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.notes import see_other
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import FUNCTION
from engine.model import Function
from engine.model.urn import short_name


class Tab(Struct, frozen=True, kw_only=True):
    name: str  #: as shown
    path: str  #: below the path of the function; empty: the first tab


TABS = (Tab(name="Overview", path=""),)


class FunctionFrame:
    """Frame of all pages of one function."""

    def __init__(self, pages: Pages, catalog: Catalog, controls: FunctionControls, region: str) -> None:
        self._pages, self._catalog, self._controls, self._region = pages, catalog, controls, region

    def function_of(self, call: Call) -> Function:
        """Return version ``latest`` of the function that the path names. Raises UnknownFunction."""
        return self._catalog.find(own_urn(call.part("function"), call.project, self._region))

    def api_path(self, function: Function, rest: str = "") -> str:
        """Return the percent-encoded path of a function in the API, with ``rest`` after it."""
        urn = function.urn(self._region).function
        return f"{BASE.format(project_id=function.project)}/functions/{quote(urn, safe='')}{rest}"

    def page_path(self, function: Function, rest: str = "") -> str:
        """Return the percent-encoded path of a function's page, with ``rest`` after it."""
        name = short_name(function.urn(self._region).function)
        return FUNCTION.format(project_id=function.project, function=quote(name, safe="")) + rest

    async def show(self, call: Call, template: str, *, tab: str, **data: Any) -> Reply:
        """Show a tab of the function that the path names. Data of the frame stands beside ``data``."""
        function = self.function_of(call)
        return await self._pages.show(
            call,
            template,
            function=function,
            name=short_name(function.urn(self._region).function),
            controls=self._controls.of(function.function_id),
            function_path=self.page_path(function),
            tabs=TABS,
            tab=tab,
            **data,
        )


class FunctionPages:
    """First tab of a function, and the actions of the frame."""

    def __init__(self, frame: FunctionFrame, api: ApiRequests) -> None:
        self._frame, self._api = frame, api

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {f"{FUNCTION}/pause": self.pause, f"{FUNCTION}/resume": self.resume}

    async def show(self, call: Call) -> Reply:
        return await self._frame.show(call, "functions/overview.html", tab="")

    async def pause(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        body = {"reason": form.text("reason")}
        await self._api.send(call, "POST", self._frame.api_path(function, "/pause"), body)
        return see_other(self._frame.page_path(function), "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._api.send(call, "POST", self._frame.api_path(function, "/resume"))
        return see_other(self._frame.page_path(function), "Resumed.")
