"""One API of a gateway, in the fields of the vendor's procedure that changes its mode, and what tools read before."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, defstruct

from engine.errors import NotFound
from engine.http.api.routing import INVOKE_OR_READ, ApiFamily, BodyCall, Call, Subject, operation, own_urn, read
from engine.http.api.triggers import TriggersApi
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import Triggers

_API = "/v2/{project_id}/apigw/instances/{instance_id}/apis/{api_id}"
_GROUPS, _PROJECTS, _DOMAINS = "/v1.0/apigw/api-groups", "/v3/projects", "/v3/auth/domains"
OF_CALLER = frozenset((_GROUPS, _PROJECTS, _DOMAINS))  #: paths without a project; that of the credentials counts
_KINDS = ("APIG", "DEDICATEDGATEWAY", "APIC")
_SAME = ("name", "type", "req_method", "match_mode", "backend_type", "group_id", "cors", "func_info")
#: Fields of an API, by those of the trigger's data.
_FIELDS = dict(zip(_SAME, _SAME, strict=True)) | {"protocol": "req_protocol", "path": "req_uri", "auth": "auth_type"}
Object = dict[str, Any]
ApiChange = defstruct("ApiChange", [(field, Any, UNSET) for field in _FIELDS.values()], frozen=True, kw_only=True)


class GatewayApi(ApiFamily):
    subject = Subject("api", ("api_id",), ("name",))

    def __init__(self, triggers: Triggers, served: TriggersApi, region: str) -> None:
        self._triggers, self._served, self._region = triggers, served, region

    @read("ShowDetailsOfApiV2", _API, Object)
    async def show(self, call: Call) -> Object:
        return _reply(self._find(call))

    @operation("UpdateApiV2", "PUT", _API, ApiChange, Object)
    async def update(self, call: BodyCall[Struct]) -> Object:
        """Change the fields that the body has."""
        body, trigger = await call.read(), self._find(call)
        given = {name: getattr(body, field) for name, field in _FIELDS.items()}
        change = {name: value for name, value in given.items() if value is not UNSET}
        urn = own_urn(trigger.function, call.project, self._region)
        changed = await self._triggers.update(urn, trigger.kind, trigger.id, [change])
        await self._served.settle(changed)
        return _reply(changed)

    @read("ListApiGroups", _GROUPS, Object)
    async def list_groups(self, call: Call) -> Object:
        """List the groups that APIs of the project name, and ``default``."""
        names = {"default": ""} | {api.options.group_id: api.options.group_name for api in self._apis(_project(call))}
        groups = [_group(group, name) for group, name in sorted(names.items())]
        return {"total": len(groups), "size": len(groups), "groups": groups}

    @operation("CreateApiGroup", "POST", _GROUPS, Object, Object, status=201, traced=False)
    async def create_group(self, call: BodyCall[Object]) -> Object:
        """Return the group of a name. It is listed when an API names it."""
        return _group(str((await call.read()).get("name") or "default"))

    @read("KeystoneListProjects", _PROJECTS, Object, query=("name",), roles=INVOKE_OR_READ)
    async def list_projects(self, call: Call) -> Object:
        """List the project of the credentials, under the name of the region for which the client asks."""
        return {"projects": [{"id": _project(call), "name": call.text("name") or self._region}], "links": {}}

    @read("KeystoneListAuthDomains", _DOMAINS, Object, roles=INVOKE_OR_READ)
    async def list_domains(self, call: Call) -> Object:
        return {"domains": [{"id": _project(call), "name": _project(call)}], "links": {}}

    def _apis(self, project: str) -> list[BoundTrigger]:
        return [each for each in self._triggers.in_project(project) if each.kind in _KINDS and each.options is not None]

    def _find(self, call: Call) -> BoundTrigger:
        for trigger in self._apis(call.project):
            if trigger.shown["api_id"] == call.part("api_id").replace("-", ""):
                return trigger
        raise NotFound(f"no API has the id {call.part('api_id')[:100]!r}")


def _project(call: Call) -> str:
    """Return the project of the credentials; without any, all projects exist."""
    return (call.principal.project if call.principal is not None else "") or "default"


def _group(group: str, name: str = "") -> Object:
    return {"id": group, "name": name or group, "status": 1, "sl_domain": ""}


def _reply(trigger: BoundTrigger) -> Object:
    options, shown = trigger.options, trigger.shown
    same = {field: getattr(options, name) for name, field in _FIELDS.items()} | {"func_info": shown["func_info"]}
    environment = {"run_env_id": options.env_id, "run_env_name": options.env_name}
    return {**same, **environment, "id": shown["api_id"], "group_name": options.group_name, "status": 1}
