"""Requests of the Terraform provider in the life of topics, log groups, log streams and the status log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import PROJECT, REGION, EngineProcess, Reply, engine_on

TOPICS = f"/v2/{PROJECT}/notifications/topics"
URN = f"urn:smn:{REGION}:{PROJECT}:orders"
TAGS = f"/v2/{PROJECT}/smn_topic/orders/tags"
BY_NAME = {"X-SMN-RESOURCEID-TYPE": "name"}
GROUPS = f"/v2/{PROJECT}/groups"
STATUS = f"/v2/{PROJECT}/fgs/functions"
#: Policy as the provider builds it from ``users_publish_allowed = "*"``.
POLICY = json.dumps(
    {
        "Version": "2016-09-07",
        "Id": "__default_policy_ID",
        "Statement": [
            {
                "Sid": "__user_pub_0",
                "Effect": "Allow",
                "Principal": {"CSP": "*"},
                "Action": ["SMN:Publish", "SMN:QueryTopicDetail"],
                "Resource": URN,
            }
        ],
    }
)


@pytest.fixture
def engine(engine: EngineProcess) -> Iterator[EngineProcess]:
    """Return the engine of all tests; delete the topic and the log groups that the test leaves behind."""
    engine.headers["User-Agent"] = "terraform-provider-iac golangsdk/2.0.0"
    yield engine
    engine.ask("DELETE", f"{TOPICS}/{URN}")
    for group in engine.ask("GET", GROUPS).json["log_groups"]:
        if group["log_group_name"] != "functiond":
            engine.ask("DELETE", f"{GROUPS}/{group['log_group_id']}")


def tags_of(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


# --- topics -------------------------------------------------------------------------------------------------


def change_tags(engine: EngineProcess, action: str, **tags: str) -> Reply:
    return engine.ask("POST", f"{TAGS}/action", {"action": action, "tags": tags_of(tags)}, headers=BY_NAME)


def read_topic(engine: EngineProcess) -> dict[str, Any]:
    """Send the requests with which the provider reads a topic, and return the attributes that it stores."""
    topic = engine.ask("GET", f"{TOPICS}/{URN}")
    policies = [
        engine.ask("GET", f"{TOPICS}/{URN}/attributes?name={name}") for name in ("access_policy", "introduction")
    ]
    tags = engine.ask("GET", TAGS, headers=BY_NAME)
    assert [reply.status for reply in (topic, *policies, tags)] == [200] * 4
    return {
        "display_name": topic.json["display_name"],
        "enterprise_project_id": topic.json["enterprise_project_id"],
        "access_policy": policies[0].json["attributes"]["access_policy"],
        "introduction": policies[1].json["attributes"]["introduction"],
        "tags": {tag["key"]: tag["value"] for tag in tags.json["tags"]},
    }


def test_the_life_of_a_topic_with_all_options(engine: EngineProcess) -> None:
    replies = [
        engine.ask("POST", TOPICS, {"name": "orders", "display_name": "Orders", "enterprise_project_id": "ep-1"}),
        engine.ask("PUT", f"{TOPICS}/{URN}/attributes/access_policy", {"value": POLICY}),
        engine.ask("PUT", f"{TOPICS}/{URN}/attributes/introduction", {"value": "new orders"}),
        change_tags(engine, "create", foo="bar", key="value"),
    ]
    engine.kill()
    engine.start()
    first = read_topic(engine)
    replies += [
        engine.ask("PUT", f"{TOPICS}/{URN}", {}),
        engine.ask("PUT", f"{TOPICS}/{URN}/attributes/access_policy", {"value": ""}),
        engine.ask("PUT", f"{TOPICS}/{URN}/attributes/introduction", {"value": ""}),
        change_tags(engine, "delete", foo="bar", key="value"),
        change_tags(engine, "create", foo="changed"),
    ]
    second = read_topic(engine)
    replies.append(engine.ask("DELETE", f"{TOPICS}/{URN}"))
    gone = engine.ask("GET", f"{TOPICS}/{URN}")
    engine.ask("POST", TOPICS, {"name": "orders"})

    assert [reply.status for reply in replies] == [201, 200, 200, 204, 200, 200, 200, 204, 204, 200]
    assert first == {
        "display_name": "Orders",
        "enterprise_project_id": "ep-1",
        "access_policy": POLICY,
        "introduction": "new orders",
        "tags": {"foo": "bar", "key": "value"},
    }
    without = {**first, "display_name": "", "access_policy": "", "introduction": ""}
    assert second == {**without, "tags": {"foo": "changed"}}
    assert (gone.status, gone.json["code"]) == (404, "SMN.0006")
    assert read_topic(engine) == {**without, "enterprise_project_id": "0", "tags": {}}


def test_bad_attributes_and_tags_of_a_topic_change_nothing(engine: EngineProcess) -> None:
    engine.ask("POST", TOPICS, {"name": "orders"})
    before = read_topic(engine)
    attributes, policy = f"{TOPICS}/{URN}/attributes", json.loads(POLICY)
    many = {f"key-{number}": "" for number in range(21)}
    refused = [
        engine.ask("GET", f"{attributes}?name=other"),
        engine.ask("PUT", f"{attributes}/other", {"value": ""}),
        engine.ask("PUT", f"{attributes}/introduction", {"value": "x" * 121}),
        engine.ask("PUT", f"{attributes}/access_policy", {"value": "[]"}),
        engine.ask("PUT", f"{attributes}/access_policy", {"value": json.dumps({**policy, "Version": "1"})}),
        engine.ask("PUT", f"{attributes}/access_policy", {"value": json.dumps({**policy, "Id": ""})}),
        engine.ask("PUT", f"{attributes}/access_policy", {"value": json.dumps({**policy, "Statement": []})}),
        engine.ask("PUT", f"{attributes.replace('orders', 'none')}/introduction", {"value": ""}),
        change_tags(engine, "replace", key="value"),
        change_tags(engine, "create", **many),
        engine.ask("POST", f"{TAGS}/action", {"action": "create", "tags": tags_of({"a": "1"}) * 2}, headers=BY_NAME),
        engine.ask("POST", f"{TAGS}/action", {"action": "create", "tags": tags_of({"": "1"})}, headers=BY_NAME),
        engine.ask("GET", TAGS.replace("orders", "none"), headers=BY_NAME),
        engine.ask("GET", TAGS),
        engine.ask("POST", f"{TAGS}/other", {}, headers=BY_NAME),
    ]

    codes = ["46", "46", "47", "48", "49", "50", "51", "06", "38", "38", "38", "38", "06", "06", "01"]
    assert [reply.json["code"] for reply in refused] == [f"SMN.00{code}" for code in codes]
    statuses = [400, 400, 403, *[400] * 4, 404, *[400] * 4, 404, 404, 405]
    assert [reply.status for reply in refused] == statuses
    assert read_topic(engine) == before


# --- log groups and streams ---------------------------------------------------------------------------------


def groups(engine: EngineProcess) -> dict[str, Any]:
    """Return the log groups by id, from the list in which the provider finds one."""
    return {log_group["log_group_id"]: log_group for log_group in engine.ask("GET", GROUPS).json["log_groups"]}


def change_log_tags(engine: EngineProcess, kind: str, resource: str, action: str, **tags: str) -> Reply:
    listed = [{**tag, "tags_to_streams_enable": False} for tag in tags_of(tags)]
    return engine.ask("POST", f"/v1/{PROJECT}/{kind}/{resource}/tags/action", {"action": action, "tags": listed})


def test_the_life_of_a_log_group_and_a_stream(engine: EngineProcess) -> None:
    body = {"log_group_name": "shop", "ttl_in_days": 3}
    group = engine.ask("POST", f"{GROUPS}?enterprise_project_id=ep-1", body).json["log_group_id"]
    replies = [change_log_tags(engine, "groups", group, "create", foo="bar", key="value")]
    first = groups(engine)[group]
    streams = f"{GROUPS}/{group}/streams"
    stream = engine.ask("POST", streams, {"log_stream_name": "web"}).json["log_stream_id"]
    replies.append(change_log_tags(engine, "topics", stream, "create", side="front"))
    engine.kill()
    engine.start()
    [tagged] = engine.ask("GET", streams).json["log_streams"]
    replies += [
        engine.ask("POST", f"{GROUPS}/{group}", {"ttl_in_days": 9}),
        change_log_tags(engine, "groups", group, "delete", foo="bar", key="value"),
        change_log_tags(engine, "groups", group, "create", foo="changed"),
        change_log_tags(engine, "topics", stream, "delete", side="front"),
    ]
    second, [untagged] = groups(engine)[group], engine.ask("GET", streams).json["log_streams"]
    replies += [engine.ask("DELETE", f"{streams}/{stream}"), engine.ask("DELETE", f"{GROUPS}/{group}")]

    assert [reply.status for reply in replies] == [200, 200, 200, 200, 200, 200, 204, 204]
    assert first["tag"] == {"_sys_enterprise_project_id": "ep-1", "foo": "bar", "key": "value"}
    assert second == {**first, "ttl_in_days": 9, "tag": {"_sys_enterprise_project_id": "ep-1", "foo": "changed"}}
    assert [(log_group["tag"], log_group["ttl_in_days"]) for log_group in (tagged, untagged)] == [
        ({"side": "front"}, 3),
        ({}, 9),
    ]
    assert group not in groups(engine)


def test_a_group_of_an_enterprise_project_may_have_all_of_its_tags_changed(engine: EngineProcess) -> None:
    body = {"log_group_name": "full", "ttl_in_days": 3}
    group = engine.ask("POST", f"{GROUPS}?enterprise_project_id=ep-1", body).json["log_group_id"]
    first, second = ({f"{name}{number}": "" for number in range(20)} for name in ("old", "new"))

    replies = [
        change_log_tags(engine, "groups", group, "create", **first),
        change_log_tags(engine, "groups", group, "delete", **first),
        change_log_tags(engine, "groups", group, "create", **second),
        change_log_tags(engine, "groups", group, "create", more=""),
    ]
    shown = groups(engine)[group]
    engine.ask("DELETE", f"{GROUPS}/{group}")

    assert [reply.status for reply in replies] == [200, 200, 200, 400]
    assert shown["tag"] == {"_sys_enterprise_project_id": "ep-1", **second}


def test_tags_of_a_group_may_apply_to_its_streams_too(engine: EngineProcess) -> None:
    group = engine.ask("POST", GROUPS, {"log_group_name": "shop", "ttl_in_days": 3}).json["log_group_id"]
    engine.ask("POST", f"{GROUPS}/{group}/streams", {"log_stream_name": "web"})
    tags = [{"key": "a", "value": "1", "tags_to_streams_enable": True}, {"key": "b", "value": "2"}]

    engine.ask("POST", f"/v1/{PROJECT}/groups/{group}/tags/action", {"action": "create", "tags": tags})

    [stream] = engine.ask("GET", f"{GROUPS}/{group}/streams").json["log_streams"]
    shown = groups(engine)[group]
    assert (shown["tag"], stream["tag"]) == ({"a": "1", "b": "2"}, {"a": "1"})


def test_bad_tags_and_transfers_of_unknown_groups_change_nothing(engine: EngineProcess) -> None:
    group = engine.ask("POST", GROUPS, {"log_group_name": "shop", "ttl_in_days": 3}).json["log_group_id"]
    path, many = f"/v1/{PROJECT}/groups/{group}/tags/action", {f"key-{number}": "" for number in range(21)}
    refused = [
        change_log_tags(engine, "groups", group, "replace", a="1"),
        change_log_tags(engine, "groups", group, "create", **many),
        change_log_tags(engine, "groups", "none", "create", a="1"),
        change_log_tags(engine, "topics", "none", "create", a="1"),
        engine.ask("POST", path, {"action": "create", "tags": tags_of({"a": "1"}) * 2}),
        engine.ask("POST", path, {"action": "create", "tags": []}),
        engine.ask("GET", f"/v2/{PROJECT}/transfers?limit=100&log_group_name=none"),
        engine.ask("POST", path.replace("action", "other"), {}),
    ]

    codes = ["LTS.0009", "LTS.0009", "LTS.0201", "LTS.0208", "LTS.0009", "LTS.0009", "LTS.0201", "LTS.0009"]
    assert [reply.json["error_code"] for reply in refused] == codes
    assert [reply.status for reply in refused] == [400] * 7 + [404]
    shown = groups(engine)[group]
    assert shown["tag"] == {}


# --- status log ---------------------------------------------------------------------------------------------


def test_the_life_of_the_status_log(engine: EngineProcess) -> None:
    """Enable it, read it, delete its group by force, and create it again."""
    enabled = engine.ask("POST", f"{STATUS}/enable-async-status-logs")
    target = engine.ask("GET", f"{STATUS}/async-status-log-detail").json
    streams = f"{GROUPS}/{target['group_id']}/streams"
    engine.kill()
    engine.start()
    [stream] = engine.ask("GET", streams).json["log_streams"]
    transfers = engine.ask("GET", f"/v2/{PROJECT}/transfers?limit=100&log_group_name={target['group_name']}")
    deleted = engine.ask("DELETE", f"{GROUPS}/{target['group_id']}")
    again = engine.ask("GET", f"{STATUS}/async-status-log-detail")
    gone = engine.ask("GET", streams)
    engine.kill()
    engine.start()
    still_gone = engine.ask("GET", streams)
    engine.ask("POST", f"{STATUS}/enable-async-status-logs")
    [created_again] = engine.ask("GET", streams).json["log_streams"]

    assert (enabled.status, transfers.status, transfers.json) == (200, 200, {"log_transfers": []})
    assert (stream["log_stream_id"], stream["log_stream_name"]) == (target["stream_id"], target["stream_name"])
    assert (deleted.status, again.json) == (204, target)
    assert [(reply.status, reply.json["error_code"]) for reply in (gone, still_gone)] == [(400, "LTS.0201")] * 2
    assert created_again["log_stream_id"] == stream["log_stream_id"]


def test_the_status_log_exists_once_it_is_asked_for_or_a_function_enables_it(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        before = engine.ask("GET", GROUPS).json["log_groups"]
        target = engine.ask("GET", f"{STATUS}/async-status-log-detail").json
        asked = groups(engine)[target["group_id"]]
        engine.ask("DELETE", f"{GROUPS}/{target['group_id']}/streams/{target['stream_id']}")
        urn = f"urn:fss:{REGION}:{PROJECT}:function:default:hello:latest"
        settings = {"max_async_retry_attempts": 1, "enable_async_status_log": True}
        put = engine.ask("PUT", f"{STATUS}/{urn}/async-invoke-config", settings)

        assert [group["log_group_name"] for group in before] == ["functiond"]
        assert asked["log_group_name"] == target["group_name"] == "functiond-async-status"
        assert put.status == 200
        streams = engine.ask("GET", f"{GROUPS}/{target['group_id']}/streams").json["log_streams"]
        assert [stream["log_stream_id"] for stream in streams] == [target["stream_id"]]
