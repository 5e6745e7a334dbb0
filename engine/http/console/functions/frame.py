"""Frame of the pages of one function: heading, tabs, paths.

Each tab is a page of its own. A tab names the template and the last part of its path; its page family shows it by
``FunctionFrame.show``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.wire import HeaderPairs, Reply
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import app_of
from engine.http.api.routing import BASE, Call, own_urn
from engine.http.console.api_requests import ApiReply, ApiRequests
from engine.http.console.pages import Pages
from engine.http.console.paths import name_of, path_of
from engine.model import Function
from engine.model.urn import LATEST


class Tab(Struct, frozen=True, kw_only=True):
    name: str  #: as shown
    path: str  #: below the path of the function; empty: the first tab


TABS = (
    Tab(name="Code", path=""),
    Tab(name="Test", path="test"),
    Tab(name="Configuration", path="configuration"),
    Tab(name="Monitoring", path="monitoring"),
    Tab(name="Invocations", path="invocations"),
    Tab(name="Logs", path="logs"),
)
#: Pages of the tab Configuration.
CONFIGURATION = (
    Tab(name="Basics", path="configuration"),
    Tab(name="Environment", path="configuration/environment"),
    Tab(name="Concurrency", path="configuration/concurrency"),
    Tab(name="Triggers", path="configuration/triggers"),
    Tab(name="Asynchronous settings", path="configuration/asynchronous"),
    Tab(name="Versions and aliases", path="configuration/versions"),
    Tab(name="Tags", path="configuration/tags"),
    Tab(name="Reserved instances", path="configuration/reserved"),
)


class PauseForm(Struct, frozen=True, kw_only=True):
    """Form in the heading that pauses the function."""

    reason: str = ""
    error: str = ""  #: reason why it was refused; empty: it was not


NOT_SENT = PauseForm()


class FunctionFrame:
    """Frame of all pages of one function. ``api`` makes the requests of their actions. URNs are those of ``region``."""

    def __init__(
        self, pages: Pages, api: ApiRequests, catalog: Catalog, controls: FunctionControls, region: str
    ) -> None:
        self._pages, self.api, self._catalog, self._controls, self.region = pages, api, catalog, controls, region
        self.limits = catalog.limits

    def function_of(self, call: Call) -> Function:
        """Return version ``latest`` of the function that the path names. Raises UnknownFunction."""
        return self._catalog.find(own_urn(call.part("function"), call.project, self.region))

    def version_of(self, call: Call) -> Function:
        """Return the version that the query parameter ``qualifier`` names; ``latest`` if it is absent.

        Raises UnknownFunction or UnknownVersion.
        """
        latest, qualifier = self.function_of(call), call.text("qualifier")
        if not qualifier:
            return latest
        return self._catalog.find(replace(latest.urn(self.region), qualifier=qualifier, qualified=True))

    def urn_of(self, function: Function) -> str:
        """Return the URN of a function, without a version."""
        return function.urn(self.region).function

    def qualifiers(self, call: Call, latest: str = "") -> list[tuple[str, str]]:
        """Return the versions and aliases among which a page lets its reader choose, with their names on the page.

        ``latest`` is the value that stands for this version.
        """
        function_id = self.function_of(call).function_id
        versions = [version.version for version in reversed(self._catalog.versions(function_id)[1:])]
        aliases = [
            (f"!{alias.name}", f"{alias.name} → {alias.version}") for alias in self._catalog.aliases(function_id)
        ]
        return [(latest, LATEST), *aliases, *((version, version) for version in versions)]

    def api_path(self, function: Function, rest: str = "", *, qualifier: str = "") -> str:
        """Return the percent-encoded path of a function in the API, with ``rest`` after it.

        ``qualifier`` is a version or an alias.
        """
        urn = function.urn(self.region).function + (f":{qualifier}" if qualifier else "")
        return f"{BASE.format(project_id=function.project)}/functions/{quote(urn, safe='')}{rest}"

    async def send(
        self,
        call: Call,
        method: str,
        function: Function,
        rest: str = "",
        body: Any = None,
        headers: HeaderPairs = (),
        *,
        keep_body: bool = True,
    ) -> ApiReply:
        """Make a request to the API about a function. See ``api_path`` and ``ApiRequests.send``."""
        return await self.api.send(call, method, self.api_path(function, rest), body, headers, keep_body=keep_body)

    async def show(self, call: Call, template: str, *, tab: str, pause: PauseForm = NOT_SENT, **data: Any) -> Reply:
        """Show a page of the function that the path names. ``tab`` is its path, as in ``TABS`` or ``CONFIGURATION``."""
        function = self.function_of(call)
        return await self._pages.show(
            call,
            template,
            function=function,
            name=name_of(function),
            app=app_of(function),
            controls=self._controls.of(function.function_id),
            function_path=path_of(function),
            tabs=TABS,
            configuration=CONFIGURATION if tab.startswith("configuration") else (),
            tab=tab,
            pause=pause,
            **data,
        )
