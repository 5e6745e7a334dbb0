"""Operations for tracing, log storage and snapshots, of which this engine implements a part or only the replies."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from engine.errors import Unsupported
from engine.functions.catalog import Catalog
from engine.http.api.routing import FUNCTION, FUNCTIONS, ApiFamily, BodyCall, Call, operation, read
from engine.logs.target import log_target_of
from engine.model.text import MASK
from engine.resources.tracing import Tracing, TracingKeys

_TRACING = f"{FUNCTION}/tracing"
_SNAPSHOTS = f"{FUNCTION}/snapshots/{{action}}"


class TracingShape(Struct, frozen=True, kw_only=True):
    tracing_ak: str = ""
    tracing_sk: str = ""


class LogDetails(Struct, frozen=True, kw_only=True):
    group_id: str
    group_name: str | UnsetType = UNSET  #: absent unless the function's configuration names it; so is the other name
    stream_id: str
    stream_name: str | UnsetType = UNSET


class SnapshotState(Struct, frozen=True, kw_only=True):
    state: str
    code: str


class TracingAndSnapshotsApi(ApiFamily):
    def __init__(self, catalog: Catalog, tracing: Tracing) -> None:
        self._catalog, self._tracing = catalog, tracing

    @read("ShowTracing", _TRACING, TracingShape, lacks="APM")
    async def show_tracing(self, call: Call) -> TracingShape:
        keys = self._tracing.show(call.urn)
        return TracingShape(tracing_ak=keys.access, tracing_sk=MASK if keys.secret else "")

    @operation("UpdateTracing", "PUT", _TRACING, TracingShape, lacks="APM")
    async def put_tracing(self, call: BodyCall[TracingShape]) -> None:
        urn, body = call.urn, await call.read()
        await self._tracing.put(urn, TracingKeys(access=body.tracing_ak, secret=body.tracing_sk))

    @operation("EnableLtsLogs", "POST", f"{FUNCTIONS}/enable-lts-logs")
    async def enable_logs(self, call: Call) -> None:
        """Return success without any change: the output of functions is always stored."""

    @read("ShowLtsLogDetails", f"{FUNCTION}/lts-log-detail", LogDetails)
    async def show_logs(self, call: Call) -> LogDetails:
        """Return the log group and stream that the function's configuration names.

        If none are configured, return the ids of the engine's default ones.
        """
        function = self._catalog.find(call.urn)
        target, named = log_target_of(function), function.details.get("log_config", {})
        return LogDetails(
            group_id=target.group_id,
            group_name=named.get("group_name") or UNSET,
            stream_id=target.stream_id,
            stream_name=named.get("stream_name") or UNSET,
        )

    @read(
        "ShowFuncSnapshotState",
        _SNAPSHOTS,
        SnapshotState,
        lacks="snapshots",
        choices={"action": ("state", "enableSnapshot")},
    )
    async def show_snapshot(self, call: Call) -> SnapshotState:
        self._catalog.find(call.urn)
        call.choice("action")
        return SnapshotState(state="Disabled", code="")

    @operation(
        "UpdateFuncSnapshot",
        "POST",
        _SNAPSHOTS,
        status=204,
        lacks="snapshots",
        choices={"action": ("enable", "disable")},
    )
    async def switch_snapshot(self, call: Call) -> None:
        """Accept a request to disable snapshots, without any change.

        Raises Unsupported if the request enables snapshots, which only the vendor's Java runtime has.
        """
        self._catalog.find(call.urn)
        if call.choice("action") == "enable":
            raise Unsupported("snapshots of functions: instances start from code, or are reserved")
