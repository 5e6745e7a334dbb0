"""Operations for tracing, log storage and snapshots, of which this engine implements a part or only the replies."""

from __future__ import annotations

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField, Unsupported
from engine.functions.catalog import Catalog
from engine.http.api.routing import BASE, Call, Resource
from engine.logs.target import log_target_of
from engine.model.text import MASK
from engine.resources.tracing import Tracing, TracingKeys


class TracingShape(Struct, frozen=True, kw_only=True):
    tracing_ak: str = ""
    tracing_sk: str = ""


class SnapshotState(Struct, frozen=True, kw_only=True):
    state: str
    code: str


class TracingAndSnapshotsApi:
    def __init__(self, catalog: Catalog, tracing: Tracing) -> None:
        self._catalog, self._tracing = catalog, tracing

    def resources(self) -> list[Resource]:
        function = f"{BASE}/functions/{{function_urn}}"
        snapshots = {"GET": self.show_snapshot, "POST": self.switch_snapshot}
        return [
            Resource(path=f"{function}/tracing", methods={"GET": self.show_tracing, "PUT": self.put_tracing}),
            Resource(path=f"{BASE}/functions/enable-lts-logs", methods={"POST": self.enable_logs}),
            Resource(path=f"{function}/lts-log-detail", methods={"GET": self.show_logs}),
            Resource(path=f"{function}/snapshots/{{action}}", methods=snapshots),
        ]

    async def show_tracing(self, call: Call) -> Reply:
        keys = self._tracing.show(call.urn)
        return json_reply(TracingShape(tracing_ak=keys.access, tracing_sk=MASK if keys.secret else ""))

    async def put_tracing(self, call: Call) -> Reply:
        urn, body = call.urn, await call.read(TracingShape)
        await self._tracing.put(urn, TracingKeys(access=body.tracing_ak, secret=body.tracing_sk))
        return Reply()

    async def enable_logs(self, call: Call) -> Reply:
        """Return success without any change: the output of functions is always stored."""
        return Reply()

    async def show_logs(self, call: Call) -> Reply:
        """Return the log group and stream that the function's configuration names.

        If none are configured, return the engine's default ones.
        """
        return json_reply(log_target_of(self._catalog.find(call.urn)))

    async def show_snapshot(self, call: Call) -> Reply:
        self._catalog.find(call.urn)
        _check_action(call, ("state", "enableSnapshot"))
        return json_reply(SnapshotState(state="Disabled", code=""))

    async def switch_snapshot(self, call: Call) -> Reply:
        """Accept a request to disable snapshots, without any change.

        Raises Unsupported if the request enables snapshots, which only the vendor's Java runtime has.
        """
        self._catalog.find(call.urn)
        if _check_action(call, ("enable", "disable")) == "enable":
            raise Unsupported("snapshots of functions: instances start from code, or are reserved")
        return Reply(status=204)


def _check_action(call: Call, allowed: tuple[str, ...]) -> str:
    action = call.part("action")
    if action not in allowed:
        raise InvalidField("action", action, f"must be {' or '.join(allowed)}")
    return action
