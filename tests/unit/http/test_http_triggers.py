"""Triggers over HTTP, with the requests of Terraform and of scripts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.triggering import GOOD
from tests.support.http_app import PROJECT, Answer, Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")

FGS = f"/v2/{PROJECT}/fgs"
TIMER = {"name": "t", "schedule_type": "Cron", "schedule": "@every 1h30m", "user_event": "Created by terraform"}


async def send(api: Api, method: str, path: str, body: object = None) -> Answer:
    return await api.send(method, path, body, base=FGS)


async def create(api: Api, kind: str = "TIMER", data: Any = TIMER, urn: str = urn_of(), **fields: object) -> Answer:
    body = {"trigger_type_code": kind, "event_data": data, **fields}
    return await send(api, "POST", f"/triggers/{urn}", body)


def path_of(trigger: Answer, urn: str = urn_of()) -> str:
    return f"/triggers/{urn}/{trigger.json['trigger_type_code']}/{trigger.json['trigger_id']}"


async def test_requests_of_terraform_create_change_show_and_delete_a_trigger(api: Api) -> None:
    before = await send(api, "GET", f"/triggers/{urn_of()}")
    created = await create(api, trigger_status="", event_type_code="MessageCreated")
    foreign = await api.send("GET", path_of(created), base="/v2/other/fgs")
    changed = await send(api, "PUT", path_of(created), {"trigger_status": "DISABLED", "event_data": TIMER})
    shown = await send(api, "GET", path_of(created))
    deleted = await send(api, "DELETE", path_of(created))
    gone = await send(api, "GET", path_of(created))

    replies = (created, foreign, changed, shown, deleted, gone)
    assert [answer.status for answer in replies] == [201, 403, 200, 200, 204, 404]
    times = {"created_time", "last_updated_time"}
    assert created.json.keys() == {"trigger_id", "trigger_type_code", "trigger_status", "event_data", *times}
    assert (before.raw, created.json["event_data"]) == (b"[]", TIMER)
    assert changed.json == shown.json
    assert (shown.json["trigger_status"], shown.json["event_data"]["schedule"]) == ("DISABLED", "@every 1h30m")
    assert (gone.json["error_code"], deleted.raw) == ("FSS.1140", b"")
    assert gone.headers["x-request-id"]


async def test_options_given_as_empty_are_shown_as_empty(api: Api) -> None:
    created = await create(api, "OBS", {"bucket": "b", "events": ["s3:ObjectCreated:*"], "prefix": "a/", "suffix": ""})

    changed = await send(api, "PUT", path_of(created), {"event_data": [{"prefix": ""}]})

    shown = [answer.json["event_data"] for answer in (created, changed)]
    assert [(data["prefix"], data["suffix"]) for data in shown] == [("a/", ""), ("", "")]


async def test_an_object_replaces_the_data_and_a_list_is_merged_into_it(api: Api) -> None:
    created = await create(api)
    short = {"name": "t", "schedule_type": "Rate", "schedule": "3m"}

    as_object = await send(api, "PUT", path_of(created), {"event_data": short})
    as_list = await send(api, "PUT", path_of(created), {"event_data": [{"schedule": "5m"}, {"user_event": "u"}]})
    nothing = await send(api, "PUT", path_of(created), {"event_data": None, "trigger_status": None})

    assert as_object.json["event_data"] == short
    assert as_list.json["event_data"] == {**short, "schedule": "5m", "user_event": "u"}
    assert nothing.json["event_data"] == as_list.json["event_data"]


async def test_an_object_without_what_the_kind_needs_is_refused_and_changes_nothing(api: Api) -> None:
    created = await create(api)

    refused = [
        await send(api, "PUT", path_of(created), {"trigger_status": "DISABLED", "event_data": data})
        for data in ({}, {"user_event": "one"}, {**TIMER, "schedule": "@every never"})
    ]

    assert [(answer.status, answer.json["error_code"]) for answer in refused] == [(400, "FSS.1109")] * 3
    assert (await send(api, "GET", path_of(created))).json == created.json


async def test_a_masked_secret_in_an_object_is_kept_and_an_absent_one_removed(api: Api) -> None:
    kafka = {"instance_id": "i", "topic_ids": ["a"], "batch_size": 1, "kafka_user": "u", "kafka_password": "tiger"}
    created = await create(api, "KAFKA", kafka)
    masked = created.json["event_data"]

    kept = await send(api, "PUT", path_of(created), {"event_data": {**masked, "batch_size": 2}})
    no_login = {name: value for name, value in kafka.items() if not name.startswith("kafka_")}
    removed = await send(api, "PUT", path_of(created), {"event_data": no_login})
    unknown = await send(api, "PUT", path_of(created), {"event_data": masked})

    assert masked == {**kafka, "kafka_password": "******"}
    assert kept.json["event_data"] == {**masked, "batch_size": 2}
    assert removed.json["event_data"] == no_login
    assert (unknown.status, unknown.json["error_code"]) == (400, "FSS.1113")


async def test_fields_that_a_trigger_does_not_have_are_named_and_misspelt_ones_refused(api: Api) -> None:
    kafka = {"instance_id": "i", "topic_ids": ["b"], "batch_size": 1}
    created = await create(api, "KAFKA", {**kafka, "func_info": {}, "stream_name": "s", "user_event": None})
    changed = await send(api, "PUT", path_of(created), {"event_data": [{"batch_size": 2}, {"queue_id": "q"}]})
    misspelt = await create(api, "KAFKA", {**kafka, "topic_ids": ["c"], "message_fromat": "record"})

    assert created.headers["x-functiond-ignored-fields"] == "event_data.func_info, event_data.stream_name"
    assert changed.headers["x-functiond-ignored-fields"] == "event_data.queue_id"
    assert misspelt.status == 400
    assert "did you mean message_format?" in misspelt.json["error_msg"]


@pytest.mark.parametrize("kind", sorted(GOOD))
async def test_terraform_gets_the_keys_that_it_has_sent_and_no_others(api: Api, kind: str) -> None:
    sent = {name: value for name, value in GOOD[kind].items() if "password" not in name}
    masked = dict.fromkeys(GOOD[kind].keys() - sent.keys(), "******")

    created = await create(api, kind, GOOD[kind])
    terraform = {"User-Agent": "terraform-provider-iac golangsdk/2.0.0"}
    shown = await api.send("GET", path_of(created), headers=terraform, base=FGS)
    listed = await api.send("GET", f"/triggers/{urn_of()}", headers=terraform, base=FGS)

    assert shown.json["event_data"] == sent | masked
    assert listed.json == [shown.json]
    assert created.json["event_data"].keys() >= GOOD[kind].keys()


async def test_kinds_are_a_list_of_names_and_those_that_have_one_show_an_event(api: Api) -> None:
    kinds, samples = await send(api, "GET", "/triggertypes"), await send(api, "GET", "/sample-events")

    assert {"TIMER", "APIG", "DEDICATEDGATEWAY", "OPENSOURCEKAFKA", "EVENTGRID"} <= set(kinds.json)
    assert kinds.json == sorted(set(kinds.json))
    assert (await send(api, "GET", "/feature")).json == {}  # no feature is switched on

    events = {sample["trigger_type_code"]: sample["event"] for sample in samples.json}
    assert events["TIMER"]["trigger_type"] == "TIMER"
    assert events["APIG"]["httpMethod"] == "POST"
    assert "DMS" not in events


async def test_the_triggers_of_a_project_come_in_pages(api: Api) -> None:
    await api.create("other")
    first = await create(api)
    second = await create(api, urn=urn_of("other"))
    await create(api, "SMN", {"topic_urn": "urn:smn:x"})

    page = await send(api, "GET", "/triggers?maxitems=1&trigger_type=TIMER")
    rest = await send(api, "GET", f"/triggers?maxitems=1&trigger_type=TIMER&marker={page.json['next_marker']}")

    triggers = [page.json["triggers"][0], rest.json["triggers"][0]]
    sources = [trigger.pop("source") for trigger in triggers]
    own = {"name": "t", "subject": "@every 1h30m", "mode": "async", "mode_fixed": True}
    given = {"given_data": first.json["event_data"]}
    assert triggers == [
        {**first.json, **own, **given, "func_urn": urn_of()},
        {**second.json, **own, **given, "func_urn": urn_of("other")},
    ]
    assert [(source["state"], len(source["due"]), source["zone"]) for source in sources] == [("stopped", 3, "UTC")] * 2
    assert (page.json["count"], rest.json["next_marker"]) == (2, 2)
    assert (await send(api, "GET", "/triggers")).json["count"] == 3


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"event_data": TIMER}, 400, "FSS.0400"),
        ({"trigger_type_code": "TIMER"}, 400, "FSS.0400"),
        ({"trigger_type_code": "TIMER", "event_data": [TIMER]}, 400, "FSS.0400"),
        ({"trigger_type_code": "TIMER", "event_data": {}}, 400, "FSS.1109"),
        ({"trigger_type_code": "", "event_data": {}}, 400, "FSS.1101"),
        (b"{", 406, "FSS.0406"),
        (b'{"trigger_type_code": "TIMER", "event_data": {"name": "\\ud800"}}', 406, "FSS.0406"),
        ({"trigger_type_code": "SMN", "event_data": {"topic_urn": "x" * 256}}, 400, "FSS.1102"),
    ],
)
async def test_bodies_that_are_no_trigger_are_refused(api: Api, body: object, status: int, code: str) -> None:
    refused = await send(api, "POST", f"/triggers/{urn_of()}", body)

    assert (refused.status, refused.json["error_code"]) == (status, code)
    assert refused.headers["x-request-id"]


async def test_replies_of_kinds_have_what_the_vendor_adds(api: Api) -> None:
    data = {"bucket": "photos", "events": ["ObjectCreated"]}
    dds = {"instance_id": "i", "db_name": "d", "collection_name": "c", "db_password": "p", "batch_size": 1}

    obs, mongo = await create(api, "OBS", data), await create(api, "DDS", dds)

    assert obs.json["event_data"] == {**data, "name": obs.json["trigger_id"]}
    assert mongo.json["event_data"] == {**dds, "db_password": "******", "db_user": "rwuser"}


async def test_event_grid_takes_both_spellings_of_its_flag(api: Api) -> None:
    spelled = [{"Key_encode": True}, {"key_encode": True}]
    data = [{"channel_id": f"c{number}", **flag} for number, flag in enumerate(spelled)]

    replies = [await create(api, "EVENTGRID", options) for options in data]

    assert [reply.json["event_data"] for reply in replies] == [
        {"channel_id": f"c{number}", "Key_encode": True} for number in range(2)
    ]
