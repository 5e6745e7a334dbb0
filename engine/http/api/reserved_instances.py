"""Reserved instances (FunctionGraph API: UpdateFunctionReservedInstancesCount and others)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct
from msgspec.structs import replace

from engine.http.api.paging import MAX_LIMIT, PAGE, PageInfo, page_of
from engine.http.api.routing import FUNCTION, FUNCTIONS, ApiFamily, BodyCall, Call, operation, own_urn, read
from engine.model.limits import words
from engine.model.urn import LATEST, FunctionUrn
from engine.resources.reservations import Count, Reservation, Reservations, Reserved, Tactics


class ReservedBody(Struct, frozen=True, kw_only=True):
    count: Annotated[
        Count,
        words("Instances", "Kept running without work. A project may reserve as many as limits.reserved_instances."),
    ]
    idle_mode: bool = False
    tactics_config: Tactics = Tactics()


class ReservedCount(Struct, frozen=True, kw_only=True):
    func_urn: str
    count: int


class ReservedCounts(Struct, frozen=True, kw_only=True):
    reservedinstances: list[ReservedCount]
    page_info: PageInfo
    count: int


class ReservedConfig(Struct, frozen=True, kw_only=True):
    function_urn: str
    qualifier_type: str
    qualifier_name: str
    min_count: int
    idle_mode: bool
    tactics_config: Tactics


class ReservedConfigs(Struct, frozen=True, kw_only=True):
    reserved_instances: list[ReservedConfig]
    page_info: PageInfo
    count: int


class ReservedApi(ApiFamily):
    def __init__(self, reservations: Reservations, region: str) -> None:
        self._reservations, self._region = reservations, region

    @operation(
        "UpdateFunctionReservedInstancesCount", "PUT", f"{FUNCTION}/reservedinstances", ReservedBody, ReservedBody
    )
    async def put(self, call: BodyCall[ReservedBody]) -> ReservedBody:
        urn, body = call.urn, await call.read()
        wanted = Reservation(count=body.count, idle_mode=body.idle_mode, tactics=body.tactics_config)
        await self._reservations.put(urn, wanted)
        return body

    @read("ListFunctionReservedInstances", f"{FUNCTIONS}/reservedinstances", ReservedCounts, query=(*PAGE, "urn"))
    async def list_counts(self, call: Call) -> ReservedCounts:
        reservations = self._reservations.find(call.project, self._queried_urn(call, "urn"))
        page = page_of(call, reservations, "limit", maximum=MAX_LIMIT, default=400)
        counts = [ReservedCount(func_urn=self._urn(reserved), count=reserved.count) for reserved in page.items]
        return ReservedCounts(reservedinstances=counts, page_info=page.info, count=page.count)

    @read(
        "ListReservedInstanceConfigs",
        f"{FUNCTIONS}/reservedinstanceconfigs",
        ReservedConfigs,
        query=(*PAGE, "function_urn"),
    )
    async def list_configs(self, call: Call) -> ReservedConfigs:
        reservations = self._reservations.find(call.project, self._queried_urn(call, "function_urn"))
        page = page_of(call, reservations, "limit", maximum=MAX_LIMIT, default=100)
        configs = [self._config(reserved) for reserved in page.items]
        return ReservedConfigs(reserved_instances=configs, page_info=page.info, count=page.count)

    def _queried_urn(self, call: Call, name: str) -> FunctionUrn | None:
        """Return the URN in the query parameter ``name``; None if it is absent.

        A URN with version ``latest`` selects all versions of the function: Terraform sends it for that purpose.
        """
        text = call.text(name)
        urn = own_urn(text, call.project, self._region) if text else None
        return replace(urn, qualified=False) if urn is not None and urn.qualifier == LATEST else urn

    def _urn(self, reserved: Reserved) -> str:
        return f"{reserved.function.urn(self._region).function}:{reserved.qualifier}"

    def _config(self, reserved: Reserved) -> ReservedConfig:
        return ReservedConfig(
            function_urn=self._urn(reserved),
            qualifier_type="alias" if reserved.qualifier.startswith("!") else "version",
            qualifier_name=reserved.qualifier.removeprefix("!"),
            min_count=reserved.reservation.count,
            idle_mode=reserved.reservation.idle_mode,
            tactics_config=reserved.reservation.tactics,
        )
