"""``functiond http``: paths under which an HTTP gateway publishes functions."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from functiond.app import Auth

from engine.cli.options import Flag, Texts
from engine.cli.output import Row, print_done, print_list
from engine.cli.target import DEFAULT_TARGET, Target
from engine.cli.triggers import triggers_of
from engine.deploy.apis import ANY, KIND, apis_at, publish
from engine.deploy.client import Client, path_of
from engine.errors import UsageError
from engine.model.urn import short_name

Async = Annotated[bool | None, Parameter(name="--async", negative="--sync", show_default=False)]


def http(
    name: str | None = None,
    path: str | None = None,
    /,
    *,
    method: Texts = (),
    wait: Async = None,
    auth: Auth | None = None,
    delete: Flag = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Publish a function under a path, such as ``http hello /hello``, or list the paths of functions.

    If the path is published, options that are not given stay as they are.

    Parameters
    ----------
    path
        Path, in which ``{id}`` is a parameter. HTTP functions also get the requests of all paths below it.
    method
        Method of the requests, such as POST. Repeat for several. [default: those of the path, else ANY]
    wait
        Reply with 202 and the request id at once, or wait for the function. [default: --sync]
    auth
        NONE: all requests. IAM: those with credentials of the engine. APP: those of an app in its settings.
    delete
        Remove the path, for these methods or all.
    """
    client = target.client()
    apis = apis_at(client, name, path, method) if name and path else []
    if delete:
        if not apis:
            raise UsageError(f"no such path {path or 'PATH'} of {name or 'NAME'}: `functiond http` lists all")
        for api in apis:
            client.of_project.send("DELETE", f"/triggers{path_of(str(name))}/{KIND}/{api['trigger_id']}")
        print_done("deleted", str(path), json=target.json, kind="path", function=str(name))
        return
    if name and path:
        mode = {None: None, True: "async", False: "sync"}[wait]
        for verb in method or [api["event_data"]["req_method"] for api in apis] or [ANY]:
            publish(client, name, path, method=verb, mode=mode, auth=auth)
    listed = [api for api in published(client, name) if path in (None, api["event_data"]["path"])]
    print_list(listed, "No paths.", _row, json=target.json)


def published(client: Client, name: str | None = None) -> list[dict[str, Any]]:
    """Return the APIs of a function, or of all functions."""
    return [trigger for trigger in triggers_of(client, name) if "req_method" in trigger["event_data"]]


def _row(trigger: dict[str, Any]) -> Row:
    data, source = trigger["event_data"], trigger["source"]
    return {
        "ADDRESS": data.get("invoke_url", data["path"]),
        "METHOD": data["req_method"],
        "MODE": trigger["mode"],
        "AUTH": data["auth"],
        "FUNCTION": short_name(trigger["func_urn"]),
        "STATE": source["state"],
        "PROBLEM": source["problem"],
    }
