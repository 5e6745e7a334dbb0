"""Status log with a real engine: every state of every invocation is in its log stream once, in order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import (
    BASE,
    ECHO,
    HELD,
    PROJECT,
    EngineProcess,
    begun,
    engine_on,
    held_event,
    rows,
    until,
    urn_of,
)

pytestmark = pytest.mark.long

GROUPS = f"/v2/{PROJECT}/groups"
DETAIL = f"{BASE}/async-status-log-detail"
WAIT, RUNNING, SUCCESS, FAIL, DISCARD = range(5)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data") as engine:
        yield engine


def search(engine: EngineProcess, target: dict[str, str], **fields: object) -> Any:
    path = f"{GROUPS}/{target['group_id']}/streams/{target['stream_id']}/content/query"
    body = {"start_time": 0, "end_time": 1 << 50, "limit": 5000, **fields}
    reply = engine.ask("POST", path, body)
    return reply.json if reply.status == 200 else {"logs": [], **reply.json}


def logged(engine: EngineProcess, target: dict[str, str]) -> list[dict[str, Any]]:
    return [json.loads(line["content"]) for line in search(engine, target)["logs"]]


def states(engine: EngineProcess, target: dict[str, str]) -> dict[str, list[int]]:
    """Return the logged states of each invocation in their order."""
    by_request: dict[str, list[int]] = {}
    for line in logged(engine, target):
        by_request.setdefault(line["request_id"], []).append(line["seq_status"])
    return by_request


def create(engine: EngineProcess, name: str, source: str = ECHO, **settings: object) -> None:
    engine.create(name, source)
    engine.configure(name, enable_async_status_log=True, **settings)


def test_each_state_is_a_line_as_the_platform_writes_it(engine: EngineProcess) -> None:
    create(engine, "hello")
    engine.create("quiet", ECHO)
    target = engine.ask("GET", DETAIL).json
    began = int(time.time() * 1000) - 1
    request_id = engine.accepted("hello")
    engine.record("quiet", engine.accepted("quiet"), wait=30)

    lines = until(lambda: (so_far := logged(engine, target)) and len(so_far) >= 3 and so_far)

    order = ["function_urn", "request_id", "seq_status", "operation_timestamp", "error_code", "error_message"]
    assert [list(line) for line in lines] == [order] * 3
    assert [line["seq_status"] for line in lines] == [WAIT, RUNNING, SUCCESS]
    assert {(line["function_urn"], line["request_id"], line["error_code"]) for line in lines} == {
        (urn_of("hello"), request_id, 0)
    }
    times = [line["operation_timestamp"] for line in lines]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= time.time() * 1000


def test_states_are_in_the_stream_once_although_the_engine_is_killed(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        create(engine, "hello")
        create(engine, "held", HELD)
        target = engine.ask("GET", DETAIL).json
        held_one = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        sent = []
        for _ in range(2):
            sent += [engine.accepted("hello") for _ in range(40)]
            engine.kill(children=True)
            engine.start()
        (tmp_path / "gate").touch()
        for request_id in sent:
            assert engine.record("hello", request_id, wait=30)["status"] == "SUCCESS"
        assert engine.record("held", held_one, wait=30)["status"] == "SUCCESS"
        until(lambda: rows(engine.data, "SELECT count(*) FROM status_log") == [(0,)])

        by_request = states(engine, target)

        assert {*by_request} == {*sent, held_one}
        for request_id, seen in by_request.items():
            attempts, end = seen[:-1], seen[-1]
            assert attempts == [WAIT, RUNNING] * (len(attempts) // 2), (request_id, seen)
            assert end == SUCCESS
        assert len(by_request[held_one]) > 3  # returned to WAIT by a crash


def test_a_deleted_stream_is_created_again_at_the_next_line(engine: EngineProcess) -> None:
    create(engine, "hello")
    target = engine.ask("GET", DETAIL).json
    first = engine.accepted("hello")
    until(lambda: states(engine, target).get(first) == [WAIT, RUNNING, SUCCESS])
    engine.ask("DELETE", f"{GROUPS}/{target['group_id']}")
    gone = search(engine, target)
    second = engine.accepted("hello")

    until(lambda: states(engine, target).get(second) == [WAIT, RUNNING, SUCCESS])

    assert gone["error_code"] == "LTS.0201"
    assert {*states(engine, target)} == {second}


def test_settings_name_another_stream_and_end_the_log(engine: EngineProcess) -> None:
    create(engine, "hello", log_group_id="mine", log_stream_id="states", log_stream_name="of hello")
    target = {"group_id": "mine", "stream_id": "states"}
    request_id = engine.accepted("hello")
    until(lambda: states(engine, target).get(request_id) == [WAIT, RUNNING, SUCCESS])
    engine.configure("hello", enable_async_status_log=False)
    engine.record("hello", engine.accepted("hello"), wait=30)
    engine.configure("hello", enable_async_status_log=True)
    default, last = engine.ask("GET", DETAIL).json, engine.accepted("hello")
    until(lambda: states(engine, default).get(last) == [WAIT, RUNNING, SUCCESS])

    assert {*states(engine, target)} == {request_id}
    assert {*states(engine, default)} == {last}
    [stream] = engine.ask("GET", f"{GROUPS}/mine/streams").json["log_streams"]
    assert stream["log_stream_name"] == "of hello"


def test_lines_are_found_by_text_and_time_a_page_at_a_time(engine: EngineProcess) -> None:
    create(engine, "hello")
    target = engine.ask("GET", DETAIL).json
    sent = [engine.accepted("hello") for _ in range(5)]
    until(lambda: len(logged(engine, target)) == 15)
    everything = [line["content"] for line in search(engine, target)["logs"]]

    paged, line_num = list[str](), ""
    for _ in range(4):
        page = search(engine, target, limit=4, line_num=line_num)
        paged += [line["content"] for line in page["logs"]]
        line_num = page["next_line_num"]
    newest = search(engine, target, is_desc=True)
    last_four = search(engine, target, is_desc=True, limit=4)
    rest = search(engine, target, is_desc=True, line_num=last_four["next_line_num"])
    single = search(engine, target, keywords=sent[2])
    none = search(engine, target, end_time=1000)

    assert paged == everything
    assert page["isQueryComplete"]
    assert [line["content"] for line in newest["logs"]] == everything[::-1]
    assert not last_four["isQueryComplete"]
    assert [line["content"] for line in last_four["logs"] + rest["logs"]] == everything[::-1]
    assert [json.loads(line["content"])["seq_status"] for line in single["logs"]] == [WAIT, RUNNING, SUCCESS]
    assert none["logs"] == []


def test_a_trigger_may_not_read_the_states_of_its_own_project(engine: EngineProcess) -> None:
    create(engine, "hello", log_group_id="mine", log_stream_id="states")
    target = engine.ask("GET", DETAIL).json
    triggers = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"

    def listen(group: str, stream: str) -> Any:
        data = {"log_group_id": group, "log_topic_id": stream}
        return engine.ask("POST", triggers, {"trigger_type_code": "LTS", "event_data": data})

    refused = [listen(target["group_id"], target["stream_id"]), listen("mine", "states")]
    other = listen("mine", "others")
    data = {"log_group_id": "mine", "log_topic_id": "states"}
    changed = engine.ask("PUT", f"{triggers}/LTS/{other.json['trigger_id']}", {"event_data": data})

    assert [reply.status for reply in (*refused, changed)] == [400] * 3
    assert all("the states of this project's invocations" in reply.json["error_msg"] for reply in (*refused, changed))
    assert other.status == 201


def test_lines_about_states_call_no_function(engine: EngineProcess) -> None:
    create(engine, "hello")
    engine.create("reads", ECHO)
    group = engine.ask("POST", GROUPS, {"log_group_name": "app", "ttl_in_days": 1}).json["log_group_id"]
    stream = engine.ask("POST", f"{GROUPS}/{group}/streams", {"log_stream_name": "web"}).json["log_stream_id"]
    data = {"log_group_id": group, "log_topic_id": stream}
    engine.ask(
        "POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('reads')}", {"trigger_type_code": "LTS", "event_data": data}
    )
    engine.configure("hello", enable_async_status_log=True, log_group_id=group, log_stream_id=stream)
    target = {"group_id": group, "stream_id": stream}
    request_id = engine.accepted("hello")
    until(lambda: states(engine, target).get(request_id) == [WAIT, RUNNING, SUCCESS])
    sent = {"log_time_ns": str(time.time_ns()), "contents": ["from a client"], "labels": {}}
    engine.ask("POST", f"/v2/{PROJECT}/lts/groups/{group}/streams/{stream}/tenant/contents", sent)

    called = until(lambda: engine.ask("GET", f"{BASE}/{urn_of('reads')}/async-invocations").json["invocations"])

    assert len(called) == 1  # for the client's line, which is behind those about states
