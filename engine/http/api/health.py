"""State of the engine: health, readiness for new work, metrics, its nodes, and whether its clock is trusted.

The paths of the first three are /healthz, /readyz and /metrics. Metrics have the text format of Prometheus. Callers
without credentials get only the word of health and readiness, and the HTTP status. Functions are named to callers who
may know them, see ``Principal.names``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.auth.roles import OPERATOR
from engine.errors import Conflict, NotFound
from engine.executors.nodes.report import Nodes, NodesReport
from engine.http.api.routing import ALL_ROLES, BASE, ApiFamily, Call, Subject, operation, read
from engine.maintenance.clock_guard import ClockGuard, ClockState
from engine.model.clock import rfc3339

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


class Health(Struct, frozen=True, kw_only=True):
    """Health of the engine, as /healthz and /readyz return it.

    If ``status`` is neither ``ok`` nor ``ready``, further fields describe the problems, one for each affected part.
    ``degraded`` means that the engine works, but without a part, such as a damaged page of its data.
    """

    status: str


class HealthApi(ApiFamily):
    """Family of the resources. ``details``: callers without credentials see the details, too."""

    def __init__(self, checks: HealthChecks, *, details: bool = True) -> None:
        self._checks, self._details = checks, details

    @read("ShowHealth", "/healthz", Health, own=True, roles=ALL_ROLES)
    async def alive(self, call: Call) -> Reply:
        problems, degraded = self._checks.alive(), self._checks.degraded()
        word = "unhealthy" if problems else "degraded" if degraded else "ok"
        return self._reply(call, word, {**degraded, **problems}, failed=bool(problems))

    @read("ShowReadiness", "/readyz", Health, own=True, roles=ALL_ROLES)
    async def ready(self, call: Call) -> Reply:
        reasons = self._checks.ready()
        details = {**self._checks.about(self._names(call)), **self._checks.degraded(), **reasons}
        return self._reply(call, "not ready" if reasons else "ready", details, failed=bool(reasons))

    @operation("ShowFigures", "GET", "/metrics", reply=str, content="text/plain", own=True, roles=("read", "operator"))
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


class ClockReply(Struct, frozen=True, kw_only=True):
    """State of the clock. While it is not trusted, nothing expires, and the last three fields say more."""

    time: str
    trusted: bool
    reference: str = ""  #: last trusted time
    ahead: int = 0  #: seconds by which the clock is ahead of it
    ends_in: int = 0  #: seconds until the clock is trusted without an acceptance


class ClockApi(ApiFamily):
    subject = Subject("clock")

    def __init__(self, guard: ClockGuard) -> None:
        self._guard = guard

    @operation("ShowClock", "GET", f"{BASE}/clock", reply=ClockReply, own=True, roles=("read", "operator"))
    async def show(self, call: Call) -> ClockReply:
        return _reply(self._guard.state())

    @operation("AcceptClock", "POST", f"{BASE}/clock/accept", reply=ClockReply, own=True, roles=("operator",))
    async def accept(self, call: Call) -> ClockReply:
        return _reply(await self._guard.accept())


def _reply(state: ClockState) -> ClockReply:
    if not state.held:
        return ClockReply(time=rfc3339(state.now), trusted=True)
    return ClockReply(
        time=rfc3339(state.now),
        trusted=False,
        reference=rfc3339(state.reference),
        ahead=int(state.ahead),
        ends_in=int(state.ends_in),
    )


class NodesApi(ApiFamily):
    """Family of the nodes; ``nodes`` is None if the engine has none."""

    subject = Subject("node", ("name",), ("name",))

    def __init__(self, nodes: Nodes | None) -> None:
        self._nodes = nodes

    @read("ListNodes", f"{BASE}/nodes", NodesReport, own=True, roles=OPERATOR)
    async def show(self, call: Call) -> NodesReport:
        return self._present().report()

    @operation("DrainNode", "POST", f"{BASE}/nodes/{{name}}/drain", reply=NodesReport, own=True, roles=OPERATOR)
    async def drain(self, call: Call) -> NodesReport:
        """Let no instance start on the node. Its agent exits when the last instance has ended."""
        nodes, name = self._present(), call.part("name")
        try:
            nodes.drain(name)
        except KeyError:
            raise NotFound(f"no node {name[:63]}: see `functiond nodes`") from None
        except ValueError as problem:
            raise Conflict(f"the node {name} cannot be drained: {problem}") from None
        return nodes.report()

    def _present(self) -> Nodes:
        if self._nodes is None:
            raise NotFound("this engine has no nodes: set listen, and agents or ray, in the section [executor.nodes]")
        return self._nodes
