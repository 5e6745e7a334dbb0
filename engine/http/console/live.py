"""Server-sent events of the console: they tell a visible page that something has changed, so that it fetches itself.

Nothing is done while nobody listens. Changes are joined, so that a page is told at most once in ``PAUSE`` seconds.
After ``QUIET`` seconds without a change, the page is told as well, because it shows ages, and states that are not
announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import anyio

from engine.asgi.streaming import EVENTS, Stream, Write, event
from engine.asgi.wire import Reply
from engine.errors import InvalidRequest, ShuttingDown, Unavailable
from engine.http.api.routing import Call
from engine.http.console.pages import HEADERS, PageFamily, browser_of, get
from engine.http.console.paths import CHANGES
from engine.logs.feed import LogBoard
from engine.metrics.loop_lag import LoopLag
from engine.protocols.audit import Audit

LISTENERS = 64  #: pages that are told at the same time
#: Pages of one browser, which has six connections to an engine. Its others fetch themselves at intervals.
EACH = 3
PAUSE = 1.0  #: seconds between two events of a page
QUIET = 5.0
_BEGIN = b"retry: 1000\n\n"  #: milliseconds until the browser connects again
_CHANGE = event("change", {})


class LiveEvents(PageFamily):
    """Streams of events. A stream ends when ``is_valid`` no longer accepts the request that opened it.

    Output of functions and changes by the API count as changes as long as a page listens; ``note_change`` tells of
    others.
    """

    def __init__(
        self, is_valid: Callable[[Call], bool], logs: LogBoard, audit: Audit, lag: LoopLag, *, pause: float = PAUSE
    ) -> None:
        self._is_valid, self._logs, self._audit, self._lag, self._pause = is_valid, logs, audit, lag, pause
        self._listeners: dict[asyncio.Event, str] = {}  #: with their browsers, see ``browser_of``
        self._stopping = False

    def note_change(self, *_: object) -> None:
        """Tell all pages soon."""
        for listener in self._listeners:
            listener.set()

    def stop(self) -> None:
        """End all streams, and refuse new ones, because the engine stops."""
        self._stopping = True
        self.note_change()

    @get("ConsoleEvents", CHANGES)
    async def show(self, call: Call) -> Reply:
        """Return a stream of events. Raises InvalidRequest unless the request accepts it, Unavailable at the limit.

        Raises ShuttingDown while the engine stops.
        """
        if EVENTS not in call.headers.get(b"accept", b""):
            raise InvalidRequest("this path has events for the console's pages; send Accept: text/event-stream")
        if self._stopping:
            raise ShuttingDown
        if len(self._listeners) >= LISTENERS:
            raise Unavailable(f"{LISTENERS} pages of the console are kept up to date already; close some")
        browser = browser_of(call)
        if browser and [*self._listeners.values()].count(browser) >= EACH:
            return Reply(status=204, headers=HEADERS)  # the browser does not ask again
        return Stream(content_type=EVENTS, headers=HEADERS, run=lambda write: self._follow(call, write))

    async def _follow(self, call: Call, write: Write) -> None:
        changed = asyncio.Event()
        self._listeners[changed] = browser_of(call)
        with ExitStack() as open_until_end:
            open_until_end.callback(self._listeners.pop, changed)
            open_until_end.enter_context(self._lag.left_out())
            open_until_end.enter_context(self._logs.subscribed(lambda lines: changed.set()))
            open_until_end.enter_context(self._audit.subscribed(lambda trace: changed.set()))
            await write(_BEGIN)
            while True:
                with anyio.move_on_after(QUIET):
                    await changed.wait()
                if self._stopping or not self._is_valid(call):
                    return
                changed.clear()
                await write(_CHANGE)
                await anyio.sleep(self._pause)
