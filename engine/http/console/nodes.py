"""Page of the nodes, with the drain of one."""

from __future__ import annotations

from urllib.parse import quote

from engine.asgi.wire import Reply
from engine.auth.roles import OPERATOR
from engine.executors.nodes.report import NodesReport
from engine.http.api.routing import BASE, Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.pages import PageFamily, Pages, get, post, see_other
from engine.http.console.paths import NODES


class NodesPage(PageFamily):
    def __init__(self, pages: Pages, api: ApiRequests) -> None:
        self._pages, self._api = pages, api

    @get("ConsoleNodes", NODES, OPERATOR)
    async def show(self, call: Call) -> Reply:
        reply = await self._api.send(call, "GET", f"{BASE.format(project_id=call.project)}/nodes")
        return await self._pages.show(call, "nodes.html", report=reply.read(NodesReport))

    @post("ConsoleDrainNode", f"{NODES}/{{name}}/drain")
    async def drain(self, call: Call, form: Form) -> Reply:
        name = call.part("name")
        target = f"{BASE.format(project_id=call.project)}/nodes/{quote(name, safe='')}/drain"
        await self._api.send(call, "POST", target)
        return see_other(NODES.format(project_id=call.project), f"The node {name} is being drained.")
