"""Calls, chains and groups over the API of a real engine: repeats, ends of every kind, kill -9, bad input."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import (
    BASE,
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

API = f"/v2/{PROJECT}/fgs"
#: Function that doubles its event, and notes its runs in the file ``runs`` if it has one.
DOUBLE = """
def handler(event, context):
    if event == "bad":
        raise ValueError("a bad event")
    if isinstance(event, dict) and "large" in event:
        return "x" * event["large"]
    return event * 2
"""
KEEP = "def handler(event, context):\n    return {'got': event}\n"
COUNTS = "SELECT total, stored, done, failed FROM call_group"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("calls") / "data") as engine:
        deploy(engine)
        yield engine


def deploy(engine: EngineProcess) -> None:
    for name, code in (("double", DOUBLE), ("keep", KEEP), ("held", HELD), ("sink", KEEP)):
        engine.create(name, code)
    settings = {"on_failure": {"destination": "FunctionGraph", "param": json.dumps({"func_urn": urn_of("sink")})}}
    body = {"max_async_event_age_in_seconds": 3600, "max_async_retry_attempts": 0, "destination_config": settings}
    for name in ("double", "keep"):
        assert engine.ask("PUT", f"{BASE}/{urn_of(name)}/async-invoke-config", body).status == 200


def queue(engine: EngineProcess, *calls: dict[str, Any], **body: Any) -> list[str]:
    reply = engine.ask("POST", f"{API}/calls", {"calls": list(calls), **body})
    assert reply.status == 202, reply.body
    return [result["request_id"] for result in reply.json["results"]]


def group_of(engine: EngineProcess, *calls: dict[str, Any], **body: Any) -> dict[str, Any]:
    """Return the ids of a sealed group of calls."""
    created: dict[str, Any] = engine.ask("POST", f"{API}/groups", body).json
    if calls:
        queue(engine, *calls, group={"id": created["group_id"], "first": 0})
    seal(engine, created, len(calls))
    return created


def seal(engine: EngineProcess, group: dict[str, Any], total: int) -> None:
    assert engine.ask("POST", f"{API}/groups/{group['group_id']}/seal", {"total": total}).status == 200


def shown(engine: EngineProcess, group: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = engine.ask("GET", f"{API}/groups/{group['group_id']}").json
    return reply


def ended(engine: EngineProcess, group: dict[str, Any], state: str) -> dict[str, Any]:
    """Wait until a group has a state. Return it."""
    return until(lambda: (reply := shown(engine, group))["state"] == state and reply["end_time"] and reply)


def results(engine: EngineProcess, *ids: str) -> list[dict[str, Any]]:
    """Wait until invocations have ended. Return their results in the order of ids."""
    body = {"request_ids": list(ids), "wait": 50, "count": len(ids)}
    reply = engine.ask("POST", f"{API}/async-invocations/results", body).json
    by_id = {result["request_id"]: result for result in reply["results"]}
    return [by_id[request_id] for request_id in ids]


def refused(engine: EngineProcess, path: str, body: dict[str, Any]) -> tuple[int, str]:
    reply = engine.ask("POST", f"{API}/{path}", body)
    return reply.status, reply.json["error_msg"]


def double(event: Any, **options: Any) -> dict[str, Any]:
    return {"function": "double", "event": event, **options}


KEPT = {"function": "keep", "event": {"args": ["more"], "kwargs": {"by": "name"}}}


# --- chains ---------------------------------------------------------------------------------------------------


def test_a_failure_ends_the_chain_and_tells_its_cause(engine: EngineProcess) -> None:
    [last] = queue(engine, double("bad", then=[{"function": "double"}, KEPT]))

    [result] = results(engine, last)
    assert (result["status"], result["error_code"]) == ("FAIL", 150520)
    assert "a bad event" in result["error_message"]
    delivered = until(lambda: rows(engine.data, "SELECT DISTINCT source FROM invocation WHERE cause > 0"))
    assert delivered == [("FunctionGraph",)]  # on_failure of each that did not run


def test_a_result_that_is_not_kept_ends_the_chain(engine: EngineProcess) -> None:
    [last] = queue(engine, double({"large": 300_000}, then=[{"function": "double"}]))
    assert "300000 bytes" in results(engine, last)[0]["error_message"].replace(",", "")


def test_a_cancelled_chain_cancels_what_it_waits_for(engine: EngineProcess, tmp_path: Path) -> None:
    [last] = queue(engine, {"function": "held", "event": held_event(tmp_path), "then": [{"function": "keep"}]})
    [first] = begun(tmp_path, 1)
    reasons = engine.ask("GET", f"{BASE}/{urn_of('keep')}/async-invocations/{last}/explain").json["reasons"]
    assert reasons == [{"reason": "held", "text": "it runs after others: 0 of 1 calls have ended"}]

    assert engine.ask("POST", f"{BASE}/{urn_of('keep')}/cancel", {"request_id": last}).status == 200

    assert [result["error_code"] for result in results(engine, first, last)] == [4208, 4208]


def test_the_deletion_of_its_function_ends_a_continuation(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("gone", KEEP)
    queue(engine, {"function": "held", "event": held_event(tmp_path), "then": [{"function": "gone"}]})
    [first] = begun(tmp_path, 1)
    assert engine.ask("DELETE", f"{BASE}/{urn_of('gone').removesuffix(':latest')}").status == 204
    (tmp_path / "gate").touch()

    assert results(engine, first)[0]["status"] == "SUCCESS"
    state = "SELECT state FROM call_group WHERE key = (SELECT max(key) FROM call_group)"
    assert until(lambda: rows(engine.data, state) == [(3,)])


# --- groups ---------------------------------------------------------------------------------------------------


def test_a_group_runs_its_continuation_when_all_have_ended(engine: EngineProcess) -> None:
    group = group_of(engine, *(double(n) for n in range(5)), then=[{"function": "keep"}])

    [result] = results(engine, group["request_id"])
    counts = {"total": 5, "done": 5, "failed": 0, "require": "all"}
    assert json.loads(result["result"]) == {"got": {"group": {"id": group["group_id"], **counts}}}
    page = engine.ask("GET", f"{API}/groups/{group['group_id']}/members?limit=3").json
    rest = engine.ask("GET", f"{API}/groups/{group['group_id']}/members?after={page['next_after']}").json
    members = page["members"] + rest["members"]
    assert [(member["place"], member["result"]) for member in members] == [(n, str(2 * n)) for n in range(5)]
    assert rest["next_after"] is None


def test_the_first_failure_ends_a_group_and_the_others_run_on(engine: EngineProcess, tmp_path: Path) -> None:
    slow = {"function": "held", "event": held_event(tmp_path)}
    group = group_of(engine, slow, double("bad"), then=[{"function": "keep"}])

    [result] = results(engine, group["request_id"])
    assert (result["error_code"], shown(engine, group)["state"]) == (150520, "FAIL")
    (tmp_path / "gate").touch()
    assert until(lambda: shown(engine, group)["done"] == 2)
    assert ended(engine, group, "FAIL")["failed"] == 1


def test_a_cancelled_group_ends_all_its_members_also_over_a_restart(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_EXECUTOR__SLOTS="3") as engine:
        deploy(engine)
        calls = [{"function": "held", "event": held_event(tmp_path)} for _ in range(40)]
        chain = {**calls[0], "then": [{"function": "double"}]}
        group = group_of(engine, *calls, chain, then=[{"function": "keep"}])
        begun(tmp_path, 1)
        assert engine.ask("POST", f"{API}/groups/{group['group_id']}/cancel").status == 200
        engine.kill()
        engine.start()

        assert ended(engine, group, "CANCELLED")["done"] == 41
        assert rows(engine.data, "SELECT DISTINCT code FROM invocation WHERE source = 'CALL'") == [(4208,)]
        place = {"id": group["group_id"], "first": 41}
        assert refused(engine, "calls", {"calls": [double(1)], "group": place})[0] == 409


def test_members_stay_until_their_continuation_has_ended(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_STORAGE__RETENTION="0.2") as engine:
        deploy(engine)
        code = f"{HELD}\n\ndef waits(event, context):\n    handler({held_event(tmp_path)}, context)\n"
        engine.create("waits", code, handler="index.waits")
        group = group_of(engine, *(double(n) for n in range(4)), then=[{"function": "waits"}])
        begun(tmp_path, 1)
        [alone] = queue(engine, double(9))
        until(lambda: engine.ask("GET", f"{BASE}/{urn_of('double')}/async-invocations/{alone}").status == 404)  # pruned
        assert len(engine.ask("GET", f"{API}/groups/{group['group_id']}/members").json["members"]) == 4

        (tmp_path / "gate").touch()
        for table in ("invocation", "call", "call_group"):
            until(lambda table=table: rows(engine.data, f"SELECT 1 FROM {table}") == [])  # type: ignore[misc]


def test_a_group_is_counted_once_whenever_the_engine_is_killed(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        deploy(engine)
        chains = [double(n, then=[{"function": "double"}]) for n in range(300)]
        group = group_of(engine, *chains, then=[{"function": "keep"}])
        for _ in range(3):
            time.sleep(0.15)  # a moment in the midst of the work, not a wait for a result
            engine.kill()
            engine.start()

        assert json.loads(results(engine, group["request_id"])[0]["result"])["got"]["group"]["done"] == 300
        assert rows(engine.data, f"{COUNTS} WHERE kind = 0") == [(300, 300, 300, 0)]
        assert rows(engine.data, f"{COUNTS} WHERE kind = 1 AND (done, failed) <> (1, 0)") == []


# --- options --------------------------------------------------------------------------------------------------


def test_results_come_when_as_many_have_ended_as_are_asked_for(engine: EngineProcess) -> None:
    for _ in range(4):  # ends that are announced while others are read must not count twice
        ids = queue(engine, *map(double, range(1000)))
        body = {"request_ids": ids, "wait": 50, "count": 1000}
        replied = engine.ask("POST", f"{API}/async-invocations/results", body).json["results"]

        assert [result["request_id"] for result in replied] == ids
        assert {result["status"] for result in replied} == {"SUCCESS"}


# --- bad input ------------------------------------------------------------------------------------------------


def test_each_bad_call_has_an_error_of_its_own(engine: EngineProcess) -> None:
    calls = [
        double(1), {"function": "nobody"}, {"function": "urn:fss:local-1:other:function:default:double:latest"},
        double("x" * 300_000), double(2, then=[{"function": "nobody"}]),
        double(3, then=[{"function": "keep", "event": [1]}]), double(4, unique=True, key="k"),
        double(5, at="2026-12-01T00:00:00"), double(6, ordering_key="k" * 200),
    ]  # fmt: skip
    reply = engine.ask("POST", f"{API}/calls", {"calls": calls}).json
    codes = [result.get("error_code", "") for result in reply["results"]]
    assert codes == ["", "FSS.1051", "FSS.0403", "FSS.0413", "FSS.1051", "FSS.0400", "FSS.0400", "FSS.0400", ""]


def test_a_group_takes_all_calls_or_none(engine: EngineProcess) -> None:
    group = engine.ask("POST", f"{API}/groups", {}).json
    place = {"id": group["group_id"], "first": 0}
    status, message = refused(engine, "calls", {"calls": [double(1), double("x" * 300_000)], "group": place})
    assert (status, message.startswith("calls[1]: ")) == (413, True)
    queue(engine, double(1, key="used"))
    status, message = refused(engine, "calls", {"calls": [double(1), double(1, key="used")], "group": place})
    assert (status, "calls[1]" in message) == (409, True)
    assert shown(engine, group)["stored"] == 0
    assert refused(engine, f"groups/{group['group_id']}/seal", {"total": 1})[0] == 409
    assert refused(engine, f"groups/{group['group_id']}/seal", {"total": 100_001})[0] == 400
    assert (
        refused(engine, "calls", {"calls": [double(1)], "group": {"id": group["group_id"], "first": 100_000}})[0] == 400
    )
    assert refused(engine, "calls", {"calls": [double(1)], "group": {"id": "0", "first": 0}})[0] == 404
    assert refused(engine, "groups", {"then": [{"function": "nobody"}]})[0] == 404
    assert refused(engine, "calls", {"calls": [double(1)], "parent": group["group_id"]})[0] == 403
