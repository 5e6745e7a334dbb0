"""Requests of the Terraform provider in the life of triggers.

The resource ``huaweicloud_fgs_function_trigger`` compares ``event_data`` as text with its configuration: another key in
a reply is a change in every plan. The older ``huaweicloud_fgs_trigger`` reads lists and changes the status only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import PROJECT, REGION, EngineProcess, Reply, engine_on, urn_of
from tests.support.documents import DOCS, blocks

TRIGGERS = f"/v2/{PROJECT}/fgs/triggers"
URN = urn_of("hello")
TIMER = {
    "name": "t_rate",
    "schedule_type": "Rate",
    "sync_execution": False,
    "user_event": "Created by acc test",
    "schedule": "3m",
}
GATEWAY = {
    "name": "orders",
    "type": 1,
    "path": "/orders",
    "protocol": "HTTP",
    "req_method": "ANY",
    "group_id": "shop",
    "match_mode": "SWA",
    "env_name": "RELEASE",
    "env_id": "release",
    "auth": "NONE",
    "func_info": {"timeout": 5000},
}
#: Data of further kinds, as short as the provider's users write them.
OTHERS: dict[str, dict[str, Any]] = {
    "APIG": GATEWAY,
    "SMN": {"topic_urn": f"urn:smn:{REGION}:{PROJECT}:orders"},
    "DIS": {"stream_name": "clicks", "sharditerator_type": "LATEST"},
    "LTS": {"log_group_id": "g", "log_topic_id": "t"},
    "OBS": {"bucket": "photos", "events": ["s3:ObjectCreated:*"]},
    "KAFKA": {"instance_id": "i", "topic_ids": ["orders"], "batch_size": 10},
    "CTS": {"name": "audit", "operations": ["ECS:ecs;disk:start;stop"]},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder: Path = tmp_path_factory.mktemp("engine")
    with engine_on(folder / "data") as engine:
        engine.headers["User-Agent"] = "terraform-provider-iac golangsdk/2.0.0"
        engine.create("hello", "def handler(event, context):\n    return event\n")
        yield engine


@pytest.fixture(autouse=True)
def emptied(engine: EngineProcess) -> Iterator[None]:
    """Delete the triggers that a test leaves behind."""
    yield
    engine.ask("DELETE", f"{TRIGGERS}/{URN}")


def create(engine: EngineProcess, kind: str, data: dict[str, Any], **fields: str) -> Reply:
    return engine.ask("POST", f"{TRIGGERS}/{URN}", {"trigger_type_code": kind, "event_data": data, **fields})


def path_of(created: Reply) -> str:
    return f"{TRIGGERS}/{URN}/{created.json['trigger_type_code']}/{created.json['trigger_id']}"


def test_the_life_of_a_timer(engine: EngineProcess) -> None:
    created = create(engine, "TIMER", TIMER)
    path = path_of(created)
    shown = engine.ask("GET", path)
    disabled = engine.ask("PUT", path, {"trigger_status": "DISABLED", "event_data": TIMER})
    waited = engine.ask("GET", path)
    imported = engine.ask("GET", path)
    short = {"name": "t_rate", "schedule_type": "Cron", "schedule": "@every 1h30m"}
    changed = engine.ask("PUT", path, {"trigger_status": "ACTIVE", "event_data": short})
    after = engine.ask("GET", path)
    deleted = engine.ask("DELETE", path)
    gone, twice = engine.ask("GET", path), engine.ask("DELETE", path)

    replies = created, shown, disabled, waited, imported, changed, after, deleted, gone, twice
    assert [reply.status for reply in replies] == [201, 200, 200, 200, 200, 200, 200, 204, 404, 404]
    assert [reply.json["event_data"] for reply in replies[:7]] == [TIMER] * 5 + [short] * 2
    assert [reply.json["trigger_status"] for reply in (shown, waited, after)] == ["ACTIVE", "DISABLED", "ACTIVE"]
    assert gone.json["error_code"] == "FSS.1140"


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_a_trigger_of_every_kind_shows_no_keys_that_were_not_sent(engine: EngineProcess, kind: str) -> None:
    created = create(engine, kind, OTHERS[kind])
    shown = engine.ask("GET", path_of(created))
    updated = engine.ask("PUT", path_of(created), {"event_data": OTHERS[kind]})
    after = engine.ask("GET", path_of(created))
    deleted = engine.ask("DELETE", path_of(created))

    assert [reply.status for reply in (created, shown, updated, after, deleted)] == [201, 200, 200, 200, 204]
    assert [reply.json["event_data"] for reply in (created, shown, updated, after)] == [OTHERS[kind]] * 4


def test_what_the_engine_adds_is_beside_the_data(engine: EngineProcess) -> None:
    hook = create(engine, "WEBHOOK", {"name": "pushes", "secret": "16-characters-or-more"})
    topic, timer = create(engine, "SMN", OTHERS["SMN"]), create(engine, "TIMER", TIMER)

    assert topic.json["path"] == f"/triggers/smn/{topic.json['trigger_id']}"
    assert topic.json["subscription_status"] == "Unconfirmed"
    assert hook.json["event_data"] == {"name": "pushes", "secret": "******"}
    assert hook.json["path"] == f"/triggers/webhook/{hook.json['trigger_id']}"
    assert timer.json.keys().isdisjoint({"path", "subscription_status"})


def test_other_clients_get_the_address_of_a_gateway_in_the_data(engine: EngineProcess) -> None:
    created = create(engine, "APIG", GATEWAY)

    shown = engine.ask("GET", path_of(created), headers={"User-Agent": "huaweicloud-usdk-python/3.0"})

    assert shown.json["event_data"]["invoke_url"].endswith("/orders")
    assert shown.json["event_data"]["func_info"]["invocation_type"] == "sync"


def test_the_life_of_a_trigger_in_the_older_resource(engine: EngineProcess) -> None:
    data = {"name": "t", "schedule": "3d", "schedule_type": "Rate", "user_event": ""}
    created = create(engine, "TIMER", data, trigger_status="", event_type_code="MessageCreated")
    first = engine.ask("GET", f"{TRIGGERS}/{URN}").json
    engine.ask("PUT", path_of(created), {"trigger_status": "DISABLED"})
    second = engine.ask("GET", f"{TRIGGERS}/{URN}").json
    deleted = engine.ask("DELETE", path_of(created))

    assert (created.status, deleted.status, engine.ask("GET", f"{TRIGGERS}/{URN}").json) == (201, 204, [])
    assert [(one["trigger_status"], one["event_data"]) for one in (*first, *second)] == [
        ("ACTIVE", data),
        ("DISABLED", data),
    ]


def test_a_bad_update_changes_neither_data_nor_status(engine: EngineProcess) -> None:
    created = create(engine, "TIMER", TIMER)
    bad = [{**TIMER, "schedule": "61m"}, {"user_event": "no schedule"}, {**TIMER, "sync_execution": True}]

    refused = [engine.ask("PUT", path_of(created), {"trigger_status": "DISABLED", "event_data": data}) for data in bad]

    after = engine.ask("GET", path_of(created))
    assert [reply.status for reply in refused] == [400] * 3
    assert [reply.json["error_code"] for reply in refused[:2]] == ["FSS.1109"] * 2
    assert after.json == created.json


def test_ten_triggers_of_the_limited_kinds_fit_beside_any_number_of_others(engine: EngineProcess) -> None:
    created = [create(engine, "TIMER", {**TIMER, "name": f"t{number}"}) for number in range(10)]
    others = [create(engine, "OBS", {**OTHERS["OBS"], "bucket": f"b{number}"}) for number in range(3)]
    refused = [create(engine, kind, OTHERS[kind]) for kind in ("DIS", "LTS", "KAFKA")]
    listed = engine.ask("GET", f"{TRIGGERS}/{URN}").json

    assert [reply.status for reply in (*created, *others)] == [201] * 13
    assert [(reply.status, reply.json["error_code"]) for reply in refused] == [(403, "FSS.1123")] * 3
    assert len(listed) == 13


def test_the_data_in_the_example_of_the_documents_is_accepted_and_shown_unchanged(engine: EngineProcess) -> None:
    text = "\n".join(one.text for one in blocks(DOCS / "terraform.md", "hcl"))
    resources = re.findall(r'type +?= "(\w+)"\n +event_data = jsonencode\((\{.*?\n  \})\)', text, re.DOTALL)
    params = re.findall(r'destination = "(\w+)"\n +param +?= jsonencode\((\{.*?\})\)', text)
    created = [create(engine, kind, json.loads(data)) for kind, data in resources]
    settings: dict[str, Any] = {
        end: {"destination": kind, "param": re.sub(r"huaweicloud_[\w.]+", '"urn:smn:local-1:p:t"', param)}
        for end, (kind, param) in zip(("on_success", "on_failure"), params, strict=True)
    }
    put = engine.ask("PUT", f"/v2/{PROJECT}/fgs/functions/{URN}/async-invoke-config", {"destination_config": settings})

    assert [kind for kind, _ in resources] == ["TIMER", "APIG"]
    assert [one.json["event_data"] for one in created] == [json.loads(data) for _, data in resources]
    assert (put.status, put.json["destination_config"]) == (200, settings)
