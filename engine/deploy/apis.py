"""Paths of HTTP gateways: APIG triggers, whose many fields have defaults here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from functiond.app import HttpPath

from engine.deploy.client import Client, path_of
from engine.runtimes.catalog import Family, family_of

KIND, ANY = "APIG", "ANY"
_FIXED = {"type": 1, "protocol": "HTTP", "group_id": "default", "env_name": "RELEASE", "env_id": "RELEASE"}
Data = dict[str, Any]


def api_of(
    path: str, *, method: str = ANY, mode: str = "sync", auth: str = "NONE", prefix: bool = False, name: str = ""
) -> Data:
    """Return the ``event_data`` of an APIG trigger. ``prefix``: it also gets the requests of all paths below."""
    given = {"name": name or f"{method} {path}", "path": path, "req_method": method, "auth": auth}
    backend = {"timeout": 60_000, "invocation_type": mode}
    return {**_FIXED, **given, "match_mode": "SWA" if prefix else "NORMAL", "func_info": backend}


def apis_of(paths: Iterable[HttpPath], *, prefix: bool = False, mark: str = "") -> Iterator[Data]:
    """Yield the triggers of paths as manifests have them. ``mark`` begins their names."""
    for each in paths:
        for method in each.methods:
            given = {"method": method, "mode": each.mode, "auth": each.auth, "name": f"{mark}{method} {each.path}"}
            yield {"trigger_type_code": KIND, "event_data": api_of(each.path, prefix=prefix, **given)}


def serves_http(function: Mapping[str, Any]) -> bool:
    """Return whether a function gets requests as they are, so that its APIs match all paths below theirs."""
    return family_of(function["runtime"]) is Family.HTTP or bool((function.get("functiond") or {}).get("http"))


def publish(
    client: Client, function: str, path: str, *, method: str = ANY, mode: str | None = None, auth: str | None = None
) -> Data:
    """Create the API of a path, or change its mode and authentication if they are given. Return the trigger."""
    project, triggers = client.of_project, f"/triggers{path_of(function)}"
    prefix = serves_http(client.get(path_of(function, "/config")))
    data = api_of(path, method=method, mode=mode or "sync", auth=auth or "NONE", prefix=prefix)
    given = {"auth": auth, "func_info": {"invocation_type": mode}, "match_mode": "SWA" if prefix else None}
    if old := apis_at(client, function, path, [method]):
        return dict(project.put(f"{triggers}/{KIND}/{old[0]['trigger_id']}", {"event_data": [given]}))
    return dict(project.post(triggers, {"trigger_type_code": KIND, "event_data": data}))


def apis_at(client: Client, function: str, path: str, methods: Sequence[str]) -> list[Data]:
    """Return the APIs of a function with this path, and one of these methods; without any, all of the path."""
    listed = client.of_project.get(f"/triggers{path_of(function)}")
    apis = (one for one in listed if one["trigger_type_code"] == KIND and one["event_data"].get("path") == path)
    return [api for api in apis if not methods or api["event_data"]["req_method"] in methods]
