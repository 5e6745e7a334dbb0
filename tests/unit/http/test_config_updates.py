"""Updates of a configuration: PUT resets fields that it omits, as on the platform, and PATCH keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.http.api.function_shapes import ConfigBody
from tests.support.http_app import PROJECT, Api, encoded, urn_of, zipped

FUNCTION = f"/{urn_of(version='')}"
CONFIG = f"{FUNCTION}/config"
REQUIRED: dict[str, Any] = {"runtime": "Python3.10", "handler": "index.handler", "memory_size": 256, "timeout": 9}
#: Value of each field that an update resets if it is omitted, and the value that is read afterwards; None: no value.
RESET: dict[str, tuple[Any, Any]] = {
    "user_data": ('{"A": "1"}', ""),
    "encrypted_user_data": ('{"KEY": "secret"}', ""),
    "description": ("says hello", ""),
    "initializer_handler": ("index.prepare", ""),
    "initializer_timeout": (7, 300),
    "pre_stop_handler": ("index.stop", ""),
    "pre_stop_timeout": (5, None),
    "enable_dynamic_memory": (True, False),
    "app_xrole": ("agency of the code", None),
    "custom_image": ({"enabled": True, "image": "image"}, None),
    "domain_names": ('[{"id": "1", "domain_name": "a.example"}]', None),
    "enable_auth_in_header": (True, None),
    "enable_class_isolation": (True, None),
    "enable_cloud_debug": ("ENABLED", None),
    "enterprise_project_id": ("enterprise", None),
    "ephemeral_storage": (10_240, None),
    "extend_config": ("{}", None),
    "func_vpc": ({"vpc_id": "v", "subnet_id": "s"}, None),
    "gpu_memory": (1024, None),
    "gpu_type": ("nvidia-t4", None),
    "heartbeat_handler": ("index.beat", None),
    "is_stateful_function": (True, False),
    "lts_custom_tag": ({"team": "a"}, None),
    "mount_config": ({"mount_user": {"user_id": 1, "user_group_id": 2}, "func_mounts": []}, None),
    "network_controller": ({"disable_public_network": True}, None),
    "peering_cidr": ("192.168.0.0/16", None),
    "restore_hook_handler": ("index.restore", None),
    "restore_hook_timeout": (10, None),
    "user_data_encrypt_kms_key_id": ("key", None),
    "xrole": ("agency", None),
}
LOG: dict[str, Any] = {"enable_lts_log": False, "log_config": {"group_id": "g", "stream_id": "s"}}
KEPT: dict[str, Any] = {
    "type": "v1",
    "code_encrypt_kms_key_id": "key",
    "strategy_config": {"concurrency": 7, "concurrent_num": 2},
    "functiond": {"priority_cap": 3},
}
GIVEN = {**{name: given for name, (given, _) in RESET.items()}, **LOG}


async def shown(api: Api, *names: str) -> dict[str, Any]:
    """Return the fields as the configuration has them; None for those without a value."""
    config = (await api.send("GET", CONFIG)).json
    return {name: config.get(name) for name in names}


@pytest.mark.parametrize("field", RESET)
async def test_an_update_resets_the_only_field_that_it_omits(api: Api, field: str) -> None:
    await api.create(**REQUIRED, **GIVEN, **KEPT)
    created = await shown(api, *GIVEN, *KEPT)

    changed = await api.send("PUT", CONFIG, _without(field))

    assert (changed.status, created) == (200, {**GIVEN, **KEPT})
    assert await shown(api, *GIVEN, *KEPT) == {**GIVEN, **KEPT, field: RESET[field][1]}


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in {**REQUIRED, **GIVEN}.items() if name != field}


def test_each_field_of_a_configuration_is_known_to_be_reset_or_kept() -> None:
    known = {"func_name", "package", "func_mounts", "depend_version_list", *REQUIRED, *RESET, *LOG, *KEPT}

    assert known == set(ConfigBody.__struct_fields__)


async def test_fields_that_other_requests_set_stay(api: Api) -> None:
    package = encoded(zipped(helper__py=""))
    dependency = {"name": "helper", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}
    made = await api.send("POST", "/dependencies/version", dependency, base=f"/v2/{PROJECT}/fgs")
    await api.create(**KEPT, depend_version_list=[made.json["id"]], tags='{"a": "1"}')
    code = (await api.send("GET", f"{FUNCTION}/code")).json["func_code"]

    await api.send("PUT", CONFIG, REQUIRED)

    assert await shown(api, *KEPT, "depend_version_list") == {**KEPT, "depend_version_list": [made.json["id"]]}
    tags = await api.send("GET", f"/functions/{urn_of()}/tags", base=f"/v2/{PROJECT}")
    assert tags.json["tags"] == [{"key": "a", "value": "1"}]
    assert (await api.send("GET", f"{FUNCTION}/code")).json["func_code"] == code
    [function] = api.catalog.all()
    assert [dependency.name for dependency in function.dependencies] == ["helper"]


async def test_encrypted_data_that_an_update_omits_is_nowhere_left(api: Api) -> None:
    await api.create(**GIVEN)
    await api.send("POST", f"{FUNCTION}/versions", {"version": "v1"})

    await api.send("PUT", CONFIG, REQUIRED)

    latest, published = api.catalog.versions(api.catalog.all()[0].function_id)
    assert "secret" not in repr(latest)
    assert "secret" in repr(published)
    assert (await shown(api, "encrypted_user_data"))["encrypted_user_data"] == ""


TAGS = {"lts_custom_tag": {"team": "b"}}
OTHER = {"log_config": {"group_id": "h", "stream_id": "t"}}


@pytest.mark.parametrize(
    ("update", "left"),
    [
        ({}, LOG),
        (TAGS, {**LOG, **TAGS}),
        ({"xrole": "agency", **OTHER}, {**LOG, **OTHER}),
        ({**OTHER, **TAGS}, {**LOG, **OTHER, **TAGS}),
        ({"enable_lts_log": True}, {**LOG, "enable_lts_log": True}),
    ],
)
async def test_log_fields_that_an_update_omits_stay(api: Api, update: dict[str, Any], left: dict[str, Any]) -> None:
    await api.create(**GIVEN)

    changed = await api.send("PUT", CONFIG, {**REQUIRED, **update})

    fields = ("enable_lts_log", "log_config", "lts_custom_tag")
    assert await shown(api, *fields) == {**dict.fromkeys(fields), **left}
    assert changed.json["log_group_id"] == left["log_config"]["group_id"]


async def test_null_counts_as_omitted(api: Api) -> None:
    await api.create(**GIVEN)

    await api.send("PATCH", CONFIG, dict.fromkeys(GIVEN))
    kept = await shown(api, *GIVEN)
    await api.send("PUT", CONFIG, {**REQUIRED, **dict.fromkeys(GIVEN)})

    assert kept == GIVEN
    assert await shown(api, *GIVEN) == {name: after for name, (_, after) in RESET.items()} | LOG


#: Changes of a valid update, with status and code of the reply.
WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"func_name": "other"}, 400, "FSS.1002"),
    ({"handler": "none"}, 400, "FSS.1003"),
    ({"runtime": "Cobol"}, 400, "FSS.1005"),
    ({"memory_size": 129}, 400, "FSS.1007"),
    ({"timeout": 901}, 400, "FSS.1008"),
    ({"timeout": "9"}, 400, "FSS.1008"),
    ({"user_data": "A=1"}, 400, "FSS.1009"),
    ({"encrypted_user_data": '{"A": [1]}'}, 400, "FSS.1009"),
    ({"description": "x" * 513}, 400, "FSS.1019"),
    ({"initializer_timeout": 0}, 400, "FSS.1405"),
    ({"strategy_config": {"concurrent_num": 0}}, 400, "FSS.1026"),
    ({"depend_version_list": ["none"]}, 404, "FSS.1056"),
    ({"func_vpc": "v"}, 400, "FSS.0400"),
    ({"functiond": {"priority_cap": 10}}, 400, "FSS.0400"),
]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(("wrong", "status", "code"), WRONG, ids=lambda wrong: str(wrong)[:40])
async def test_a_refused_update_changes_nothing(
    api: Api, method: str, wrong: dict[str, Any], status: int, code: str
) -> None:
    await api.create(**GIVEN, **KEPT)
    before = (await api.send("GET", CONFIG)).json

    refused = await api.send(method, CONFIG, {**REQUIRED, "description": "new", **wrong})

    assert (refused.status, refused.json["error_code"]) == (status, code)
    assert (await api.send("GET", CONFIG)).json == before


@pytest.mark.parametrize("field", REQUIRED)
async def test_an_update_needs_the_required_fields(api: Api, field: str) -> None:
    await api.create(**GIVEN)
    before = (await api.send("GET", CONFIG)).json

    refused = await api.send("PUT", CONFIG, _without(field))

    assert refused.status == 400
    assert refused.json["error_msg"].startswith(f"{field} is ")
    assert (await api.send("GET", CONFIG)).json == before


@pytest.mark.parametrize("change", [{name: value} for name, value in [*REQUIRED.items(), ("user_data", "{}")]], ids=str)
async def test_patch_changes_the_fields_that_it_has_and_keeps_all_others(api: Api, change: dict[str, Any]) -> None:
    change = {**change, "func_name": "hello"}
    await api.create(**GIVEN, **KEPT)
    before = (await api.send("GET", CONFIG)).json

    changed = await api.send("PATCH", CONFIG, change)

    after = (await api.send("GET", CONFIG)).json
    times = {name: after[name] for name in ("last_modified", "image_name", "cpu")}
    assert changed.status == 200
    assert after == {**before, **change, **times}
    assert after.items() <= {**changed.json, **after}.items()
    assert api.catalog.all()[0].encrypted_user_data == {"KEY": "secret"}


@pytest.mark.parametrize("body", [{}, {"xrole": ""}])
async def test_patch_keeps_the_log_of_a_function_without_an_agency(api: Api, body: dict[str, Any]) -> None:
    await api.create(**GIVEN)

    await api.send("PATCH", CONFIG, body)

    assert await shown(api, *LOG, "lts_custom_tag") == {**LOG, "lts_custom_tag": {"team": "a"}}


async def test_patch_changes_latest_only(api: Api) -> None:
    await api.create(**GIVEN)
    await api.send("POST", f"{FUNCTION}/versions", {"version": "v1"})

    refused = await api.send("PATCH", f"{FUNCTION}:v1/config", {"timeout": 10})

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1015")
