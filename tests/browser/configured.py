"""A function with everything that a configuration can have, and what the API shows about it."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of

HERE = f"/console/projects/{PROJECT}/functions"
CODE = "def handler(event, context):\n    return event\n"
HOSTILE = '<script>alert("1")</script> \u202e\'"&'
#: Every field that the API takes and no page shows, beside those that they show.
CONFIG = {
    "description": f"  first line\n\nsecond, {HOSTILE} ",
    "memory_size": 256,
    "timeout": 7,
    "initializer_handler": "index.begin",
    "initializer_timeout": 11,
    "pre_stop_handler": "index.end",
    "pre_stop_timeout": 12,
    "enable_dynamic_memory": True,
    "user_data": '{"LANGUAGE": "en", "PEM": "-----\\r\\nab c\\n-----\\n"}',
    "encrypted_user_data": '{ "PASSWORD":"hunter2\\n" }',
    "strategy_config": {"concurrency": 5, "concurrent_num": 3},
    "log_config": {"group_name": "shop", "group_id": "g-1", "stream_name": "orders", "stream_id": "s-1", "more": [1]},
    "functiond": {"priority_cap": 4, "weight": 2.5},
    "xrole": "agency",
    "func_vpc": {"vpc_id": "v-1"},
    "mount_config": {"mount_user": {"user_id": 1, "user_group_id": 2}, "func_mounts": [{"mount_type": "sfs"}]},
    "lts_custom_tag": {"one": "two"},
    "ephemeral_storage": 10240,
    "heartbeat_handler": "index.beat",
    "restore_hook_handler": "index.restore",
    "restore_hook_timeout": 3,
}
RULES = [{"rule_type": "Header", "param": "X-Tenant", "op": "in", "value": f"a, {HOSTILE}"}]
ALIAS = {
    "name": "prod",
    "version": "v1",
    "description": f"one\r\n{HOSTILE}",
    "additional_version_weights": {"v2": 10},
    "additional_version_strategy": {
        "v2": {"combine_type": "or", "rules": RULES},
        "latest": {"combine_type": "and", "rules": [{"rule_type": "cookie", "param": "c", "op": "=", "value": " x "}]},
    },
}
RESERVATION = {
    "count": 0,
    "idle_mode": True,
    "tactics_config": {
        "cron_configs": [
            {"name": HOSTILE, "cron": "0 0 8 * * MON-FRI", "count": 1, "start_time": 4102444801, "expired_time": 0}
        ],
        "metric_configs": [{"name": "load", "type": "Concurrency", "threshold": 40, "min": 2}],
    },
}
TAGS = {"tags": [{"key": "team", "value": "shop + co"}], "sys_tags": [{"key": "_sys", "value": "1"}]}
CONTROLS = {
    "paused": True,
    "pause_reason": HOSTILE,
    "rate": 0.25,
    "burst": 3,
    "recycle_requests": 1000,
    "recycle_memory": 80,
    "soft_timeout": 2.5,
}


def create_full(engine: EngineProcess) -> None:
    """Create the function ``full``, which has everything that a configuration can have, and the function ``plain``."""
    for name in ("full", "plain"):
        engine.create(name, CODE)
    assert engine.ask("PATCH", of("full", "/config"), CONFIG).status == 200
    assert engine.ask("PATCH", of("full", "/controls"), CONTROLS).status == 200
    for number in (1, 2):
        engine.ask("PATCH", of("full", "/config"), {"heartbeat_handler": f"index.beat{number}"})
        version = {"version": f"v{number}", "description": HOSTILE}
        assert engine.ask("POST", of("full", "/versions"), version).status == 200
    assert engine.ask("POST", of("full", "/aliases"), ALIAS).status == 200
    assert engine.ask("PUT", of("full", "/reservedinstances", "!prod"), RESERVATION).status == 200
    assert engine.ask("POST", tags("full", "/create"), TAGS).status == 204


def of(name: str, rest: str, qualifier: str = "latest") -> str:
    urn = urn_of(name).removesuffix("latest") + qualifier
    return f"/v2/{PROJECT}/fgs/functions/{urn}{rest}"


def tags(name: str, rest: str = "") -> str:
    return f"/v2/{PROJECT}/functions/{urn_of(name)}/tags{rest}"


def everything(engine: EngineProcess, name: str) -> list[Any]:
    """Return all that the API shows about the configuration of a function."""
    paths = ("/config", "/controls", "/aliases", "/versions")
    shown = [engine.ask("GET", path).json for path in (*(of(name, path) for path in paths), tags(name))]
    reserved = f"/v2/{PROJECT}/fgs/functions/reservedinstanceconfigs?function_urn={urn_of(name)}"
    return [*shown, engine.ask("GET", reserved).json]


def config(engine: EngineProcess, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.ask("GET", of(name, "/config")).json
    return shown


def controls(engine: EngineProcess, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.ask("GET", of(name, "/controls")).json
    return shown


def save(page: Page, button: str = "Save") -> None:
    page.get_by_role("button", name=button, exact=True).click()
