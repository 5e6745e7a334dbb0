"""Requests of Terraform's provider: values that it set are returned, and unset values stay empty.

The provider sends zeros and empty texts for values that its configuration leaves out. In replies, it treats missing
fields as empty, too.
"""

from __future__ import annotations

import pytest

from tests.support.http_app import Api, urn_of
from tests.support.terraform import ALWAYS, ONLY_UPDATES

#: Configuration update: no function name, and unset values are 0 or empty.
UPDATE = {
    "runtime": "Python3.10",
    "timeout": 5,
    "memory_size": 256,
    "package": "default",
    "handler": "index.handler",
    "strategy_config": {"concurrent_num": 2},
    **ALWAYS,
    **ONLY_UPDATES,
}
FUNCTION = urn_of(version="")

pytestmark = pytest.mark.usefixtures("hello")


async def test_an_update_of_terraform_changes_the_fields_that_it_has(api: Api) -> None:
    await api.send("PUT", f"/{FUNCTION}/config-max-instance", {"max_instance_num": 7})

    changed = await api.send("PUT", f"/{FUNCTION}/config", UPDATE)

    assert changed.status == 200
    shown = (await api.send("GET", f"/{FUNCTION}/config")).json
    assert shown.items() >= {**UPDATE, "strategy_config": {"concurrency": 7, "concurrent_num": 2}}.items()


@pytest.mark.parametrize("text", ['{ "B": "1",\n "A": "\\u003c2" }', "{}", ""])
async def test_variables_are_shown_as_they_were_written(api: Api, text: str) -> None:
    await api.send("PUT", f"/{FUNCTION}/config", {**UPDATE, "user_data": text, "encrypted_user_data": text})

    shown = (await api.send("GET", f"/{FUNCTION}/config")).json

    assert (shown["user_data"], shown["encrypted_user_data"]) == (text, text)
    assert api.catalog.all()[0].user_data == ({"B": "1", "A": "<2"} if "B" in text else {})


async def test_an_alias_without_extra_versions_has_no_field_for_them(api: Api) -> None:
    await api.send("POST", f"/{FUNCTION}/versions", {"version": "v1", "description": ""})

    made = await api.send("POST", f"/{FUNCTION}/aliases", {"name": "prod", "version": "v1"})
    listed = await api.send("GET", f"/{FUNCTION}/aliases")

    assert made.json.keys() == {"name", "version", "description", "last_modified", "alias_urn"}
    assert listed.json == [made.json]


async def test_reservations_of_all_versions_are_found_by_the_urn_with_latest(api: Api) -> None:
    await api.send("POST", f"/{FUNCTION}/versions", {"version": "v1", "description": ""})
    for qualifier in ("latest", "v1"):
        await api.send("PUT", f"/{FUNCTION}:{qualifier}/reservedinstances", {"count": 1, "idle_mode": False})

    every = await api.send("GET", f"/reservedinstanceconfigs?function_urn={FUNCTION}:latest&limit=100&marker=0")
    single = await api.send("GET", f"/reservedinstanceconfigs?function_urn={FUNCTION}:v1&limit=100&marker=0")

    assert sorted(item["qualifier_name"] for item in every.json["reserved_instances"]) == ["latest", "v1"]
    assert [item["qualifier_name"] for item in single.json["reserved_instances"]] == ["v1"]
    assert single.json["reserved_instances"][0]["tactics_config"] == {}


async def test_a_test_event_can_be_renamed(api: Api) -> None:
    first, second = [
        (await api.send("POST", f"/{FUNCTION}/events", {"name": name, "content": "e30="})).json for name in ("a", "b")
    ]

    renamed = await api.send("PUT", f"/{FUNCTION}/events/{first['id']}", {"name": "c", "content": "e30="})
    taken = await api.send("PUT", f"/{FUNCTION}/events/{second['id']}", {"name": "c", "content": "e30="})
    kept = await api.send("PUT", f"/{FUNCTION}/events/{second['id']}", {"name": "b", "content": "W10="})

    assert [(answer.status, answer.json.get("name")) for answer in (renamed, kept)] == [(200, "c"), (200, "b")]
    assert (taken.status, taken.json["error_code"]) == (403, "FSS.1073")
