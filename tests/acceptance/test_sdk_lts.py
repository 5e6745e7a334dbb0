"""Vendor's SDK for LTS, unmodified, and logs of functions, with an engine process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.acceptance.engine_process import PROJECT, Reply, until, urn_of
from tests.acceptance.sdk import SDK_WARNINGS, lts, refused, send
from tests.acceptance.two_keys import OTHERS_TOKEN, Guarded, guarded
from tests.support.logs import messages

#: Prints the number of its event, or returns the lines of an LTS event.
SPEAKER = """
import base64, json
def handler(event, context):
    if "lts" not in event:
        print("said", event["n"])
        return
    for line in json.loads(json.loads(base64.b64decode(event["lts"]["data"]))["logs"]):
        print("heard", line["message"])
"""

pytestmark = SDK_WARNINGS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("lts")
    with guarded(folder, lts.LtsClient, FUNCTIOND_PLUGINS__LTS__BATCH_WAIT="0.05") as made:
        yield made


def ask(service: Guarded, method: str, path: str, body: object = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.engine.ask(method, f"/v2/{PROJECT}/{path}", body, headers=named)


def listen(service: Guarded, name: str, group: str, stream: str) -> None:
    made = service.engine.trigger(name, "LTS", {"log_group_id": group, "log_topic_id": stream})
    path = f"fgs/triggers/{urn_of(name)}/LTS/{made['trigger_id']}/state"
    until(lambda: ask(service, "GET", path).json["state"] == "running")


def heard(service: Guarded, name: str) -> list[str]:
    """Return the LTS events with which a function has run to its end, oldest first."""
    path = f"fgs/functions/{urn_of(name)}/async-invocations"
    invocations = ask(service, "GET", f"{path}?status=SUCCESS").json["invocations"]
    whole = [ask(service, "GET", f"{path}/{invocation['request_id']}").json for invocation in reversed(invocations)]
    return messages([json.loads(record["payload"]) for record in whole if record["source"] == "LTS"])


call = partial(send, models=lts)


def create(client: Any, group: str, stream: str) -> tuple[str, str]:
    """Create a log group with a stream; return both ids."""
    group_id = call(client, "CreateLogGroup", log_group_name=group, ttl_in_days=3).log_group_id
    return group_id, call(client, "CreateLogStream", log_group_id=group_id, log_stream_name=stream).log_stream_id


def test_the_sdk_makes_lists_changes_and_deletes_groups_and_streams(service: Guarded) -> None:
    group, stream = create(service.client(), "shown", "web")
    service.engine.kill()
    service.engine.start()
    client = service.client()
    changed = call(client, "UpdateLogGroup", log_group_id=group, ttl_in_days=9)
    groups = call(client, "ListLogGroups").log_groups
    streams = call(client, "ListLogStream", log_group_id=group).log_streams
    found = call(client, "ListLogStreams", log_group_name="shown").log_streams
    call(client, "DeleteLogStream", log_group_id=group, log_stream_id=stream)
    call(client, "DeleteLogGroup", log_group_id=group)

    assert changed.ttl_in_days == 9
    assert group in [item.log_group_id for item in groups]
    assert [(item.log_stream_id, item.log_stream_name, item.ttl_in_days) for item in streams] == [(stream, "web", 9)]
    assert [(item.log_group_id, item.log_stream_id) for item in found] == [(group, stream)]
    with refused(400, "LTS.0201"):
        call(client, "ListLogStream", log_group_id=group)


def test_lines_that_are_sent_call_the_function_of_their_project_only(service: Guarded) -> None:
    group, stream = create(service.client(), "sent", "web")
    service.engine.create("listener", SPEAKER)
    listen(service, "listener", group, stream)
    path, body = f"lts/groups/{group}/streams/{stream}/tenant/contents", {"log_time_ns": 1, "contents": ["a", "b"]}
    statuses = [ask(service, "POST", path, body, X_Auth_Token=token).status for token in ("wrong", OTHERS_TOKEN)]
    sent = ask(service, "POST", path, body)
    until(lambda: len(heard(service, "listener")) == 2)

    assert statuses == [401, 403]
    assert sent.json["errorCode"] == "SVCSTG.ALS.200.200"
    assert heard(service, "listener") == ["a", "b"]


def test_the_sdk_finds_states_of_invocations(service: Guarded) -> None:
    service.engine.create("logged", SPEAKER)
    service.engine.configure("logged", enable_async_status_log=True)
    target = ask(service, "GET", "fgs/functions/async-status-log-detail").json
    request_id, now = service.engine.accepted("logged", {"n": 1}), int(time.time() * 1000)
    client = service.client()

    def found() -> list[Any]:
        span = {"start_time": str(now - 60_000), "end_time": str(now + 600_000)}
        place = {"log_group_id": target["group_id"], "log_stream_id": target["stream_id"], **span}
        page = {"keywords": request_id, "limit": 10, "is_count": True, "search_type": "init"}
        logs: list[Any] = call(client, "ListLogs", **place, **page).logs
        return logs

    until(lambda: len(found()) == 3)

    assert [json.loads(line.content)["seq_status"] for line in found()] == [0, 1, 2]
    assert all(line.line_num for line in found())
