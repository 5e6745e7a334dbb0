"""What a project may have of each thing, and has."""

from __future__ import annotations

from msgspec import Struct

from engine.catalog import MAX_FUNCTIONS
from engine.http.api.parts import Parts
from engine.http.api.routing import BASE, Call, Resource
from engine.http.wire import Reply, json_reply
from engine.limits import INSTANCES
from engine.resources.reservations import MAX_PER_PROJECT

CODE_SIZE = 10_240  #: MB, as the platform has it; here the disk is the limit


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
    def __init__(self, parts: Parts) -> None:
        self._catalog, self._resources, self._instances = parts.catalog, parts.resources, parts.instances

    def resources(self) -> list[Resource]:
        return [Resource(path=f"{BASE}/quotas", methods={"GET": self.show})]

    async def show(self, call: Call) -> Reply:
        project = call.project
        functions = len(self._catalog.list(project))
        reserved = sum(one.count for one in self._resources.reservations.find(project))
        found = [
            Quota(type="fgs_func_num", quota=MAX_FUNCTIONS, used=functions),
            Quota(type="fgs_func_code_size", quota=CODE_SIZE, used=self._code_size(project), unit="MB"),
            Quota(type="fgs_func_occurs", quota=MAX_PER_PROJECT, used=reserved),
            Quota(type="fgs_on_demand_instance_limit", quota=INSTANCES[1], used=self._instances()),
            Quota(type="fgs_workflow_num", quota=0, used=0),
        ]
        return json_reply(Quotas(quotas=QuotaList(resources=found)))

    def _code_size(self, project: str) -> int:
        """MB, rounded up: every package once, whoever shares it."""
        versions = [function for function in self._catalog.all() if function.project == project]
        codes = {function.code.sha256: function.code.size for function in versions}
        codes |= {one.code.sha256: one.code.size for one in self._resources.dependencies.of(project)}
        return -(-sum(codes.values()) // (1 << 20))
