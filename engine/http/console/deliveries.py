"""Console page of deliveries: pending ones, which are retried automatically, and those that were given up."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.http.api.paging import bounds
from engine.http.api.redrive import RedriveApi
from engine.http.api.routing import Call, Handler
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import PROJECT
from engine.http.console.visibility import delivery_shown
from engine.pipeline.redrive import Redrive

ROWS = 50


class DeliveriesPage:
    def __init__(self, pages: Pages, redrive: Redrive, api: RedriveApi) -> None:
        self._pages, self._redrive, self._item = pages, redrive, api.item

    def pages(self) -> Mapping[str, Handler]:
        return {f"{PROJECT}/deliveries": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show(self, call: Call) -> Reply:
        offset, limit = bounds(call, "limit", maximum=ROWS)
        after = call.number("after", 0)
        pending, further = await self._redrive.pending(call.project, after, limit)
        given_up, count = await self._redrive.given_up(call.project, offset, limit)
        return await self._pages.show(
            call,
            "deliveries.html",
            given_up=[delivery_shown(call, self._item(pending)) for pending in given_up],
            retrying=[delivery_shown(call, self._item(pending)) for pending in pending],
            after=after,
            next_after=further,
            count=count,
            offset=offset,
            limit=limit,
        )
