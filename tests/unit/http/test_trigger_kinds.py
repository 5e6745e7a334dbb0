"""Requests for triggers that are refused with the code of their kind, and the rules of kinds about states and modes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.triggering import GOOD
from tests.support.http_app import Answer, Api, urn_of
from tests.unit.http.test_http_triggers import create, path_of, send

pytestmark = pytest.mark.usefixtures("hello")

HOOK = {"name": "pushes", "secret": "sixteen-characters-or-more"}


def refusal(answer: Answer) -> tuple[int, str]:
    """Return status and code of an error."""
    return answer.status, answer.json["error_code"]


@pytest.mark.parametrize(
    ("kind", "changes", "code", "field"),
    [
        ("TIMER", {"schedule": "61m", "schedule_type": "Rate"}, "FSS.1109", "schedule"),
        ("TIMER", {"schedule": "0 0 25 * * *"}, "FSS.1109", "schedule"),
        ("TIMER", {"name": "x" * 65}, "FSS.1109", "name"),
        ("TIMER", {"name": None}, "FSS.1109", "name"),
        ("SMN", {"topic_urn": ""}, "FSS.1102", "topic_urn"),
        ("DMS", {"polling_interval": 0}, "FSS.1103", "polling_interval"),
        ("DIS", {"stream_name": ""}, "FSS.1104", "stream_name"),
        ("DIS", {"batch_size": 10_001}, "FSS.1104", "batch_size"),
        ("DIS", {"polling_interval": 61}, "FSS.1104", "polling_interval"),
        ("DIS", {"sharditerator_type": "SOMEWHERE"}, "FSS.1104", "sharditerator_type"),
        ("OBS", {"events": ["s3:Nothing:*"]}, "FSS.1106", "events"),
        ("OBS", {"events": ["ObjectCreated", "Put"]}, "FSS.1106", "events"),
        ("OBS", {"bucket": ""}, "FSS.1106", "bucket"),
        ("OBS", {"bucket": "b" * 65}, "FSS.1106", "bucket"),
        ("APIG", {"path": "orders"}, "FSS.1107", "path"),
        ("APIG", {"auth": "SOME"}, "FSS.1107", "auth"),
        ("APIG", {"cors": 3}, "FSS.1107", "cors"),
        ("APIG", {"req_method": "BREW"}, "FSS.1107", "req_method"),
        ("APIG", {"func_info": {"timeout": 0}}, "FSS.1107", "func_info.timeout"),
        ("APIG", {"func_info": {"timeout": 60_001}}, "FSS.1107", "func_info.timeout"),
        ("APIG", {"func_info": {"timeout": 1, "function_urn": urn_of("other")}}, "FSS.1107", "func_info.function_urn"),
        ("DEDICATEDGATEWAY", {"type": 3}, "FSS.1417", "type"),
        ("LTS", {"log_group_id": None}, "FSS.1110", "log_group_id"),
        ("LTS", {"log_group_id": ""}, "FSS.1110", "log_group_id"),
        ("LTS", {"log_topic_id": 5}, "FSS.1110", "log_topic_id"),
        ("KAFKA", {"instance_id": ""}, "FSS.1112", "instance_id"),
        ("KAFKA", {"batch_size": 1001}, "FSS.1112", "batch_size"),
        ("KAFKA", {"topic_ids": []}, "FSS.1112", "topic_ids"),
        ("KAFKA", {"kafka_user": "u"}, "FSS.1113", "kafka_password"),
        ("KAFKA", {"kafka_ssl_enable": True}, "FSS.1113", "kafka_user"),
        ("OPENSOURCEKAFKA", {"kafka_connect_address": ""}, "FSS.1112", "kafka_connect_address"),
        ("DDS", {"instance_id": ""}, "FSS.1164", "instance_id"),
        ("DDS", {"instance_addrs": ["mongodb://other/?tlsCAFile=/etc/passwd"]}, "FSS.1164", "instance_addrs"),
        ("DDS", {"db_name": "admin"}, "FSS.1164", "db_name"),
        ("DDS", {"db_name": "local"}, "FSS.1164", "db_name"),
        ("DDS", {"db_password": ""}, "FSS.1164", "db_password"),
        ("DDS", {"batch_size": 0}, "FSS.1164", "batch_size"),
        ("DDS", {"batch_size": 10_001}, "FSS.1164", "batch_size"),
        ("CTS", {"name": ""}, "FSS.1305", "name"),
        ("CTS", {"name": "x" * 65}, "FSS.1305", "name"),
        ("CTS", {"operations": ["ECS"]}, "FSS.1318", "operations"),
        ("RABBITMQ", {"instance_id": ""}, "FSS.0400", "instance_id"),
        ("RABBITMQ", {"exchange_name": ""}, "FSS.0400", "exchange_name"),
        ("RABBITMQ", {"access_password": ""}, "FSS.0400", "access_password"),
        ("RABBITMQ", {"batch_size": 0}, "FSS.0400", "batch_size"),
        ("EVENTGRID", {"channel_id": ""}, "FSS.0400", "channel_id"),
        ("EVENTGRID", {"event_types": [""]}, "FSS.0400", "event_types"),
        ("WEBHOOK", {"name": ""}, "FSS.0400", "name"),
        ("WEBHOOK", {"secret": "short"}, "FSS.0400", "secret"),
        ("WEBHOOK", {"scheme": "odd"}, "FSS.0400", "scheme"),
        ("WEBHOOK", {"x": 1}, "FSS.0400", "x"),
    ],
)
async def test_wrong_options_have_the_code_of_their_kind_and_name_their_field(
    api: Api, kind: str, changes: dict[str, Any], code: str, field: str
) -> None:
    refused = await create(api, kind, {**{"WEBHOOK": HOOK, **GOOD}[kind], **changes})

    assert refusal(refused) == (400, code)
    assert re.match(rf"event_data\.{field}\b", refused.json["error_msg"]), refused.json
    assert (await send(api, "GET", f"/triggers/{urn_of()}")).json == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("SMN", "FSS.1132"),
        ("DMS", "FSS.1133"),
        ("DIS", "FSS.1134"),
        ("OBS", "FSS.1136"),
        ("APIG", "FSS.1138"),
        ("TIMER", "FSS.1140"),
        ("LTS", "FSS.1160"),
        ("DDS", "FSS.1163"),
        ("KAFKA", "FSS.1174"),
        ("CTS", "FSS.1131"),
        ("EVENTGRID", "FSS.1131"),
        ("IOTDA", "FSS.1137"),
    ],
)
async def test_missing_triggers_have_the_code_of_their_kind(api: Api, kind: str, code: str) -> None:
    path = f"/triggers/{urn_of()}/{kind}/8a6f4a8e-0000-0000-0000-000000000000"

    answers = [await send(api, method, path, body) for method, body in (("GET", None), ("PUT", {}), ("DELETE", None))]

    assert [refusal(answer) for answer in answers] == [(404, code)] * 3


@pytest.mark.parametrize(
    ("kind", "status", "code", "changes"),
    [
        ("SMN", 409, "FSS.1141", {}),
        ("DMS", 409, "FSS.1142", {}),
        ("DIS", 409, "FSS.1143", {"batch_size": 7}),
        ("OBS", 403, "FSS.1108", {"prefix": "in/small/"}),
        ("APIG", 409, "FSS.1146", {"path": "/elsewhere"}),
        ("APIG", 409, "FSS.1147", {"name": "another", "req_method": "ANY", "path": "/orders/{number}"}),
        ("TIMER", 409, "FSS.1148", {"schedule": "@every 1h30m"}),
        ("LTS", 409, "FSS.1149", {}),
        ("KAFKA", 409, "FSS.1150", {"batch_size": 7}),
        ("DDS", 409, "FSS.1166", {"batch_size": 7}),
        ("CTS", 400, "FSS.1307", {"operations": ["EVS:disk:create"]}),
        ("RABBITMQ", 409, "FSS.0409", {}),
    ],
)
async def test_a_second_trigger_like_the_first_is_refused(
    api: Api, kind: str, status: int, code: str, changes: dict[str, Any]
) -> None:
    await create(api, kind, GOOD[kind])

    assert refusal(await create(api, kind, {**GOOD[kind], **changes})) == (status, code)


@pytest.mark.parametrize("kind", ["NOTHING", "IOTDA", "TIMERS"])
async def test_other_kinds_are_refused(api: Api, kind: str) -> None:
    assert refusal(await create(api, kind, GOOD["TIMER"])) == (400, "FSS.1101")


@pytest.mark.parametrize("kind", sorted(GOOD))
async def test_only_some_kinds_can_be_disabled(api: Api, kind: str) -> None:
    trigger = await create(api, kind, GOOD[kind])
    may = kind in ("TIMER", "DDS", "DMS", "KAFKA", "LTS", "OPENSOURCEKAFKA")

    disabled = await send(api, "PUT", path_of(trigger), {"trigger_status": "DISABLED"})
    await send(api, "PUT", path_of(trigger), {"trigger_status": "ACTIVE"})

    if may:
        assert disabled.json["trigger_status"] == "DISABLED"
    else:
        assert (disabled.status, "cannot be disabled" in disabled.json["error_msg"]) == (400, True)
    assert (await send(api, "GET", path_of(trigger))).json["trigger_status"] == "ACTIVE"


async def test_a_trigger_may_be_created_disabled_where_its_kind_can_be(api: Api) -> None:
    made = await create(api, trigger_status="DISABLED")
    fixed = await create(api, "SMN", GOOD["SMN"], trigger_status="DISABLED")
    unknown = await create(api, data=GOOD["TIMER"], trigger_status="PAUSED")

    assert made.json["trigger_status"] == "DISABLED"
    assert [refusal(answer) for answer in (fixed, unknown)] == [(400, "FSS.1102"), (400, "FSS.1109")]


@pytest.mark.parametrize("kind", ["SMN", "OBS", "DIS", "TIMER", "LTS", "CTS", "DDS", "KAFKA"])
async def test_the_mode_of_asynchronous_triggers_cannot_be_changed(api: Api, kind: str) -> None:
    trigger = await create(api, kind, {**GOOD[kind], "func_info": {"invocation_type": "async"}})
    asked: list[dict[str, Any]] = [{"func_info": {"invocation_type": "sync"}}, {"invocation_type": "sync"}]
    if kind == "TIMER":
        asked.append({"sync_execution": True})

    for mode in asked:
        changed = await send(api, "PUT", path_of(trigger), {"event_data": [mode]})
        created = await create(api, kind, {**GOOD[kind], **mode})
        for answer in (changed, created):
            assert (answer.status, "invocation mode cannot be changed" in answer.json["error_msg"]) == (400, True)
