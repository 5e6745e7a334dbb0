"""Quotas of a project, such as the number of functions, and how much of each is used."""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.functions.catalog import MAX_FUNCTIONS, Catalog
from engine.http.api.routing import BASE, Call, Resource
from engine.model.limits import INSTANCES
from engine.resources.reservations import MAX_PER_PROJECT, Reservations

MB = 1 << 20


class Quota(Struct, frozen=True, kw_only=True):
    type: str
    quota: int
    used: int
    unit: str = ""


class QuotaList(Struct, frozen=True, kw_only=True):
    resources: list[Quota]


class Quotas(Struct, frozen=True, kw_only=True):
    quotas: QuotaList


class QuotasApi:
    """Quotas of projects. ``instances`` returns the number of live instances of functions."""

    def __init__(
        self, catalog: Catalog, reservations: Reservations, instances: Callable[[Collection[int]], int]
    ) -> None:
        self._catalog, self._reservations, self._instances = catalog, reservations, instances

    def resources(self) -> list[Resource]:
        return [Resource(path=f"{BASE}/quotas", methods={"GET": self.show})]

    async def show(self, call: Call) -> Reply:
        project = call.project
        functions = {function.function_id for function in self._catalog.list(project)}
        reserved = sum(one.count for one in self._reservations.find(project))
        on_demand = max(0, self._instances(functions) - reserved)
        code = self._catalog.quota
        found = [
            Quota(type="fgs_func_num", quota=MAX_FUNCTIONS, used=len(functions)),
            Quota(type="fgs_func_code_size", quota=code.limit // MB, used=-(-code.used(project) // MB), unit="MB"),
            Quota(type="fgs_func_occurs", quota=MAX_PER_PROJECT, used=reserved),
            Quota(type="fgs_on_demand_instance_limit", quota=INSTANCES[1], used=on_demand),
            Quota(type="fgs_workflow_num", quota=0, used=0),
        ]
        return json_reply(Quotas(quotas=QuotaList(resources=found)))
