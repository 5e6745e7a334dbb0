"""Requests of Terraform's provider on a running engine: mounts, packages, tags, test events, lists and triggers.

The resource ``huaweicloud_fgs_function_trigger`` compares ``event_data`` as text with its configuration: another key in
a reply is a change in every plan.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, REGION, EngineProcess, Reply, urn_of
from tests.support.documents import DOCS, blocks
from tests.support.http_app import SOURCE, encoded
from tests.support.terraform import ALWAYS, ONLY_UPDATES

MOUNT = {
    "mount_type": "sfs",
    "mount_resource": "fs-1",
    "mount_share_path": "host:/share",
    "local_mount_path": "/mnt",
}
ANY = {"user_id": -1, "user_group_id": -1}
#: Fields of a configuration update that the provider sends even if they are empty.
UPDATE = {
    "runtime": "Python3.10",
    "timeout": 3,
    "memory_size": 128,
    "handler": "index.handler",
    **ALWAYS,
    **ONLY_UPDATES,
}


@pytest.fixture(scope="module")
def engine(engine: EngineProcess) -> EngineProcess:
    engine.headers["User-Agent"] = "terraform-provider-iac golangsdk/2.0.0"
    return engine


def create(engine: EngineProcess, name: str, **fields: object) -> Any:
    """Create a function, unless another test has, and return its configuration."""
    body = {
        "func_name": name,
        "package": "default",
        "code_type": "inline",
        "func_code": {"file": encoded(SOURCE)},
        **{key: value for key, value in UPDATE.items() if value != ""},
        **fields,
    }
    made = engine.ask("POST", BASE, body)
    assert made.status in (200, 409), made
    return shown(engine, name)


def shown(engine: EngineProcess, name: str) -> Any:
    return engine.ask("GET", f"{BASE}/{urn_of(name)}/config").json


def configure(engine: EngineProcess, name: str, **fields: object) -> Reply:
    whole = urn_of(name).removesuffix(":latest")
    return engine.ask("PUT", f"{BASE}/{whole}/config", {**UPDATE, "package": "default", **fields})


# --- mounts ---


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ({"mount_user_id": 1001, "mount_user_group_id": 1003}, {"user_id": 1001, "user_group_id": 1003}),
        ({"user_id": 1001, "user_group_id": 1003}, {"user_id": 1001, "user_group_id": 1003}),
        ({"mount_user_id": 1001}, {"user_id": 1001, "user_group_id": -1}),
        ({"user_group_id": 65_534}, {"user_id": -1, "user_group_id": 65_534}),
        ({"mount_user_id": -1, "mount_user_group_id": -1}, ANY),
        ({}, ANY),
        (None, ANY),
    ],
)
@pytest.mark.parametrize("field", ["func_mounts", "mount_config"])
def test_mounts_are_shown_in_one_form_whatever_names_a_request_has(
    engine: EngineProcess, given: dict[str, int] | None, user: dict[str, int], field: str
) -> None:
    create(engine, "mounted")
    inner = "mount_config" if field == "func_mounts" else "func_mounts"

    changed = configure(engine, "mounted", **{field: {inner: [MOUNT], "mount_user": given}})

    assert changed.status == 200, changed
    assert shown(engine, "mounted")["mount_config"] == {"mount_user": user, "func_mounts": [MOUNT]}


def test_a_function_is_created_with_mounts_and_exported_with_them(engine: EngineProcess) -> None:
    made = create(engine, "comes-mounted", mount_config={"mount_user": {"mount_user_id": 7}, "func_mounts": [MOUNT]})
    package = engine.ask("GET", f"{BASE}/{urn_of('comes-mounted')}/export").body

    fields = {"func_name": "goes-mounted", "file_name": "f.zip", "file_type": "zip", "file_code": encoded(package)}
    imported = engine.ask("POST", f"{BASE}/import", fields)

    assert made["mount_config"] == {"mount_user": {"user_id": 7, "user_group_id": -1}, "func_mounts": [MOUNT]}
    assert (imported.status, imported.json["mount_config"]) == (200, made["mount_config"])


@pytest.mark.parametrize("number", [0, -2, 65_535, "1001", True])
@pytest.mark.parametrize("name", ["mount_user_id", "user_id", "mount_user_group_id", "user_group_id"])
def test_a_user_or_group_that_cannot_be_is_refused(engine: EngineProcess, name: str, number: object) -> None:
    before = create(engine, "kept")

    refused = configure(engine, "kept", timeout=9, func_mounts={"mount_config": [MOUNT], "mount_user": {name: number}})

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.0400")
    assert name.removeprefix("mount_") in refused.json["error_msg"]
    assert shown(engine, "kept") == before


# --- packages ---


def test_another_package_is_refused_with_words_and_changes_nothing(engine: EngineProcess) -> None:
    before = create(engine, "packed")

    refused = configure(engine, "packed", package="other", timeout=9)

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1004")
    assert "must be default: a function cannot move to another package" in refused.json["error_msg"]
    assert shown(engine, "packed") == before
    omitted = configure(engine, "packed", package="")  # by Open Telekom Cloud's client in Go
    assert (omitted.status, omitted.json["package"]) == (200, "default")


# --- tags ---


def tag(engine: EngineProcess, resource_id: str, action: str, **tags: str) -> Reply:
    body = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
    method = {"create": "POST", "delete": "DELETE"}[action]
    return engine.ask(method, f"/v2/{PROJECT}/functions/{resource_id}/tags/{action}", body)


def found(engine: EngineProcess, **fields: object) -> Any:
    body = {"limit": 100, "offset": 0, "action": "filter", **fields}
    return engine.ask("POST", f"/v2/{PROJECT}/functions/resource-instances/filter", body).json


def test_tags_are_shown_sorted_by_key_whatever_their_order(engine: EngineProcess) -> None:
    urn = create(engine, "tagged")["func_urn"]
    tag(engine, urn, "create", zone="1", foo="bar", key="value")
    tag(engine, urn, "create", alpha="2")

    listed = engine.ask("GET", f"/v2/{PROJECT}/functions/{urn}/tags").json["tags"]
    filtered = found(engine, tags=[{"key": "alpha", "values": ["2"]}])["resources"]

    assert [tuple(tag.values()) for tag in listed] == [("alpha", "2"), ("foo", "bar"), ("key", "value"), ("zone", "1")]
    assert [resource["tags"] for resource in filtered] == [listed]


def test_the_filter_returns_the_urn_by_which_the_provider_knows_a_function(engine: EngineProcess) -> None:
    urn = create(engine, "filtered")["func_urn"]
    tag(engine, urn, "create", colour="red")

    by_name = found(engine, matches=[{"key": "resource_name", "value": "filtered"}])
    by_tag = found(engine, tags=[{"key": "colour", "values": ["red"]}])

    assert urn == urn_of("filtered")
    assert by_name == by_tag
    (one,) = by_tag["resources"]
    assert (one["resource_id"], one["resource_detail"]) == (urn, {"detailId": urn})
    assert tag(engine, one["resource_id"], "delete", colour="red").status == 204
    assert found(engine, tags=[{"key": "colour", "values": []}]) == {"resources": [], "total_count": 0}


# --- test events ---


def test_a_test_event_has_a_time_in_lists_and_alone_once_it_is_changed(engine: EngineProcess) -> None:
    events = f"{BASE}/{create(engine, 'eventful')['func_urn']}/events"
    made = engine.ask("POST", events, {"name": "first", "content": encoded("{}")})
    event = f"{events}/{made.json['id']}"
    listed = engine.ask("GET", events).json
    before = [engine.ask("GET", event).json, listed["events"][0]]

    changed = engine.ask("PUT", event, {"name": "first", "content": encoded("[]")})
    after = [engine.ask("GET", event).json, engine.ask("GET", events).json["events"][0]]
    deleted = engine.ask("DELETE", event)

    assert (made.status, listed["count"], changed.status, deleted.status) == (200, 1, 200, 204)
    assert after[0]["content"] == encoded("[]")
    assert ["last_modified" in entry for entry in before] == [False, True]
    assert [entry["last_modified"] > 1e9 for entry in after] == [True, True]
    assert engine.ask("GET", event).status == 404


# --- lists of a project ---


def test_runtimes_are_listed_and_each_of_them_can_be_used(engine: EngineProcess) -> None:
    listed = engine.ask("GET", f"/v2/{PROJECT}/fgs/runtimetypes")

    names = [runtime["type"] for runtime in listed.json]
    assert listed.status == 200
    assert all(runtime.keys() == {"type", "display_name"} and runtime["display_name"] for runtime in listed.json)
    assert {"Python2.7", "Python3.10", "Custom", "http"} <= set(names)
    assert ("Node.js18.15" in names) == (shutil.which("node") is not None)
    made = [create(engine, f"of-{number}", runtime=name) for number, name in enumerate(names)]
    assert [created["runtime"] for created in made] == names


def test_interpreters_are_listed_with_what_packages_must_fit(engine: EngineProcess) -> None:
    everything = engine.ask("GET", f"/v2/{PROJECT}/fgs/interpreters").json
    interpreter = engine.ask("GET", f"/v2/{PROJECT}/fgs/interpreters?runtime=Python2.7").json
    unknown = engine.ask("GET", f"/v2/{PROJECT}/fgs/interpreters?runtime=Cobol")

    own = [
        interpreter for interpreter in everything if interpreter["runtime"] == "Python{}.{}".format(*sys.version_info)
    ]
    assert [interpreter["version"] for interpreter in own] == [platform.python_version()]
    assert own[0]["machine"] == platform.machine()
    assert [(found["runtime"], found["language"]) for found in interpreter] == [("Python2.7", "python")]
    assert interpreter[0]["version"] in {found["version"] for found in everything}
    assert engine.ask("GET", f"/v2/{PROJECT}/fgs/interpreters?runtime=http").json == [{**own[0], "runtime": "http"}]
    assert (unknown.status, unknown.json["error_code"]) == (400, "FSS.1005")


def test_agencies_that_functions_name_are_trusted_and_never_expire(engine: EngineProcess) -> None:
    create(engine, "first-agent", xrole="reader", app_xrole="writer")
    create(engine, "second-agent", xrole="reader", app_xrole="")

    listed = engine.ask("GET", f"/v2/{PROJECT}/fgs/service-trusted-agencies")

    assert listed.status == 200
    assert listed.json == [{"name": "reader", "expire_time": None}, {"name": "writer", "expire_time": None}]
    assert engine.ask("GET", "/v2/elsewhere/fgs/service-trusted-agencies").json == []


# --- quotas ---


def test_quotas_are_of_the_own_project(engine: EngineProcess) -> None:
    create(engine, "counted")
    engine.ask("POST", f"{BASE}/counted/invocations", {"k": 1})

    shown = [
        engine.ask("GET", f"/v2/{project}/fgs/quotas").json["quotas"]["resources"] for project in (PROJECT, "other")
    ]
    own, others = ({resource["type"]: resource for resource in resources} for resources in shown)

    assert own["fgs_on_demand_instance_limit"]["used"] >= 1
    assert own["fgs_func_num"]["used"] >= 1
    assert (own["fgs_func_num"]["quota"], own["fgs_func_code_size"]["unit"]) == (10_000, "MB")
    assert own["fgs_func_code_size"]["used"] >= 1
    assert {other["used"] for other in others.values()} == {0}


# --- triggers ---

TRIGGERS = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"
TIMER = {"name": "t_rate", "schedule_type": "Rate", "schedule": "3m"}


@pytest.fixture
def triggers(engine: EngineProcess) -> Iterator[None]:
    """Create the function of the triggers, and delete the triggers that the test leaves behind."""
    create(engine, "hello")
    yield
    engine.ask("DELETE", TRIGGERS)


def trigger(engine: EngineProcess, kind: str, data: dict[str, Any], **fields: str) -> Reply:
    return engine.ask("POST", TRIGGERS, {"trigger_type_code": kind, "event_data": data, **fields})


def test_what_the_engine_adds_is_beside_the_data(engine: EngineProcess, triggers: None) -> None:
    hook = trigger(engine, "WEBHOOK", {"name": "pushes", "secret": "16-characters-or-more"})
    topic, timer = (
        trigger(engine, "SMN", {"topic_urn": f"urn:smn:{REGION}:{PROJECT}:orders"}),
        trigger(engine, "TIMER", TIMER),
    )

    assert topic.json["path"] == f"/triggers/smn/{topic.json['trigger_id']}"
    assert topic.json["subscription_status"] == "Unconfirmed"
    assert hook.json["event_data"] == {"name": "pushes", "secret": "******"}
    assert hook.json["path"] == f"/triggers/webhook/{hook.json['trigger_id']}"
    assert timer.json.keys().isdisjoint({"path", "subscription_status"})


def test_the_data_in_the_example_of_the_documents_is_accepted_and_shown_unchanged(
    engine: EngineProcess, triggers: None
) -> None:
    text = "\n".join(block.text for block in blocks(DOCS / "terraform.md", "hcl"))
    resources = re.findall(r'type +?= "(\w+)"\n +event_data = jsonencode\((\{.*?\n  \})\)', text, re.DOTALL)
    params = re.findall(r'destination = "(\w+)"\n +param +?= jsonencode\((\{.*?\})\)', text)
    created = [trigger(engine, kind, json.loads(data)) for kind, data in resources]
    settings: dict[str, Any] = {
        end: {"destination": kind, "param": re.sub(r"huaweicloud_[\w.]+", '"urn:smn:local-1:p:t"', param)}
        for end, (kind, param) in zip(("on_success", "on_failure"), params, strict=True)
    }
    put = engine.ask("PUT", f"{BASE}/{urn_of('hello')}/async-invoke-config", {"destination_config": settings})

    assert [kind for kind, _ in resources] == ["TIMER", "APIG"]
    assert [reply.json["event_data"] for reply in created] == [json.loads(data) for _, data in resources]
    assert (put.status, put.json["destination_config"]) == (200, settings)
