"""Rejected requests for triggers, with the documented error codes, seen through the vendor's SDK."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, Platform, ask, create, refused, urn_of
from tests.acceptance.triggering import GOOD, add, delete, listed, show, update

pytestmark = SDK_WARNINGS


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("TIMER", {"schedule": "61m", "schedule_type": "Rate"}, "FSS.1109"),
        ("TIMER", {"schedule": "0 0 25 * * *"}, "FSS.1109"),
        ("TIMER", {"name": "x" * 65}, "FSS.1109"),
        ("TIMER", {"name": None}, "FSS.1109"),
        ("SMN", {"topic_urn": ""}, "FSS.1102"),
        ("DMS", {"polling_interval": 0}, "FSS.1103"),
        ("DIS", {"batch_size": 10_001}, "FSS.1104"),
        ("DIS", {"polling_interval": 61}, "FSS.1104"),
        ("DIS", {"sharditerator_type": "SOMEWHERE"}, "FSS.1104"),
        ("OBS", {"events": ["s3:Nothing:*"]}, "FSS.1106"),
        ("OBS", {"events": ["ObjectCreated", "Put"]}, "FSS.1106"),
        ("OBS", {"bucket": "b" * 65}, "FSS.1106"),
        ("APIG", {"path": "orders"}, "FSS.1107"),
        ("APIG", {"req_method": "BREW"}, "FSS.1107"),
        ("APIG", {"func_info": {"timeout": 60_001}}, "FSS.1107"),
        ("APIG", {"func_info": {"timeout": 1, "function_urn": urn_of("other")}}, "FSS.1107"),
        ("DEDICATEDGATEWAY", {"type": 3}, "FSS.1417"),
        ("LTS", {"log_group_id": None}, "FSS.1110"),
        ("KAFKA", {"batch_size": 1001}, "FSS.1112"),
        ("KAFKA", {"topic_ids": []}, "FSS.1112"),
        ("KAFKA", {"kafka_ssl_enable": True}, "FSS.1113"),
        ("OPENSOURCEKAFKA", {"kafka_connect_address": ""}, "FSS.1112"),
        ("DDS", {"db_name": "admin"}, "FSS.1164"),
        ("DDS", {"batch_size": 0}, "FSS.1164"),
        ("CTS", {"name": "x" * 65}, "FSS.1305"),
        ("CTS", {"operations": ["ECS"]}, "FSS.1318"),
        ("RABBITMQ", {"access_password": ""}, "FSS.0400"),
        ("EVENTGRID", {"channel_id": ""}, "FSS.0400"),
    ],
)
def test_wrong_configurations_have_the_code_of_their_kind(
    platform: Platform, function: str, kind: str, changes: dict[str, Any], code: str
) -> None:
    with refused(400, code):
        add(platform, function, kind, {**GOOD[kind], **changes})

    assert listed(platform, function) == []


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
def test_missing_triggers_have_the_code_of_their_kind(platform: Platform, function: str, kind: str, code: str) -> None:
    missing = (kind, "8a6f4a8e-0000-0000-0000-000000000000")

    for call in (show, update, delete):
        with refused(404, code):
            call(platform, function, missing)


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
def test_a_second_one_like_it_is_refused(
    platform: Platform, function: str, kind: str, status: int, code: str, changes: dict[str, Any]
) -> None:
    first = add(platform, function, kind, GOOD[kind])

    with refused(status, code):
        add(platform, function, kind, {**GOOD[kind], **changes})

    delete(platform, function, first)


@pytest.mark.parametrize("kind", ["NOTHING", "IOTDA", "TIMERS"])
def test_other_kinds_are_refused(platform: Platform, function: str, kind: str) -> None:
    with refused(400, "FSS.1101"):
        add(platform, function, kind, GOOD["TIMER"])


def test_a_project_has_ten_triggers_of_the_audit_service(platform: Platform) -> None:
    for number in range(10):
        create(platform, f"auditor-{number}")
        add(platform, f"auditor-{number}", "CTS", {**GOOD["CTS"], "name": f"notice-{number}"})

    with refused(400, "FSS.1306"):
        add(platform, "auditor-0", "CTS", {**GOOD["CTS"], "name": "one more"})

    for number in range(10):
        ask(platform, "DeleteFunction", urn_of(f"auditor-{number}", ""))
