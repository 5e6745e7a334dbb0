"""Resources for monitoring: health, readiness for new work, and metrics.

The paths are /healthz, /readyz and /metrics. Metrics have the text format of Prometheus. Callers without
credentials get only the word of health and readiness, and the HTTP status. Functions are named to callers who may know
them, see ``Principal.names``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.http.api.routing import Call, Resource

_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


class HealthChecks(Struct, frozen=True, kw_only=True):
    """Functions that report the state of the engine. Called at each request to /healthz, /readyz or /metrics."""

    alive: Callable[[], Mapping[str, Any]] = dict  #: problems by part; empty: healthy
    degraded: Callable[[], Mapping[str, Any]] = dict  #: parts that work with losses, each with the next step
    ready: Callable[[], Mapping[str, Any]] = dict  #: reasons for rejecting new work, by part; empty: ready
    #: further fields of the reply of /readyz, whether ready or not; names functions of a project, or of all for None
    about: Callable[[str | None], Mapping[str, Any]] = lambda project: {}
    metrics: Callable[[str | None], Awaitable[bytes]] | None = None  #: text format of Prometheus, with such names
    open_names: Callable[[], bool] = lambda: True  #: callers without credentials see the names of all functions


class Health:
    """Family of the resources. ``details``: callers without credentials see the details, too."""

    def __init__(self, checks: HealthChecks, *, details: bool = True) -> None:
        self._checks, self._details = checks, details

    def resources(self) -> list[Resource]:
        return [
            Resource(path="/healthz", methods={"GET": self.alive}),
            Resource(path="/readyz", methods={"GET": self.ready}),
            Resource(path="/metrics", methods={"GET": self.metrics}),
        ]

    async def alive(self, call: Call) -> Reply:
        problems, degraded = self._checks.alive(), self._checks.degraded()
        word = "unhealthy" if problems else "degraded" if degraded else "ok"
        return self._reply(call, word, {**degraded, **problems}, failed=bool(problems))

    async def ready(self, call: Call) -> Reply:
        reasons = self._checks.ready()
        details = {**self._checks.about(self._names(call)), **self._checks.degraded(), **reasons}
        return self._reply(call, "not ready" if reasons else "ready", details, failed=bool(reasons))

    async def metrics(self, call: Call) -> Reply:
        body = await self._checks.metrics(self._names(call)) if self._checks.metrics is not None else b""
        return Reply(body=body, content_type=_PROMETHEUS)

    def _names(self, call: Call) -> str | None:
        """Return the project whose functions are named in the reply; None for all, and an empty text for none."""
        if call.principal is not None:
            return call.principal.names
        return None if self._checks.open_names() else ""

    def _reply(self, call: Call, word: str, details: Mapping[str, Any], *, failed: bool) -> Reply:
        shown = details if self._details or call.principal is not None else {}
        return json_reply({"status": word, **shown}, status=503 if failed else 200)
