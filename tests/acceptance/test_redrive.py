"""Redrive of failed invocations and deliveries over the API and the command line, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import (
    ECHO,
    PROJECT,
    EngineProcess,
    engine_on,
    rows,
    to,
    to_function,
    until,
    urn_of,
)
from tests.support.cli import functiond_here
from tests.support.webhooks import webhook_receiver

pytestmark = pytest.mark.long

FGS = f"/v2/{PROJECT}/fgs"
FAILS_ONCE = """
from pathlib import Path
def handler(event, context):
    mark = Path({mark!r})
    if not mark.exists():
        mark.touch()
        raise RuntimeError("not yet")
    return event
"""
FAILS_UNTIL = """
import os
def handler(event, context):
    assert os.path.exists({mark!r})
"""


def run(engine: EngineProcess, *arguments: str) -> Any:
    environ = {"FUNCTIOND_PROJECT": PROJECT}
    done = functiond_here(*arguments, "--json", url=engine.url, environ=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def given_up(engine: EngineProcess) -> Any:
    return engine.ask("GET", f"{FGS}/deliveries").json


def test_an_outcome_for_a_missing_function_is_seen_and_arrives_once_the_function_is_there(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_RETRY__BASE="100") as engine:
        engine.create("one", ECHO)
        engine.configure("one", destination_config={"on_success": to_function("two")})
        request_id = engine.accepted("one", {"n": 1})
        engine.record("one", request_id, wait=30)
        deliveries = until(lambda: (listed := run(engine, "deliveries"))[0]["tries"] and listed)
        [state] = run(engine, "destinations")

        engine.kill()
        engine.start()
        engine.create("two", ECHO)
        delivery_id = deliveries[0]["delivery_id"]
        assert run(engine, "redrive", str(delivery_id)) == [{"delivery_id": delivery_id}]
        stored = until(lambda: rows(engine.data, "SELECT body FROM payload JOIN invocation USING (key) WHERE hops = 1"))

        assert (deliveries[0]["request_id"], deliveries[0]["condition"], deliveries[0]["tries"]) == (
            request_id,
            "success",
            1,
        )
        assert "two" in deliveries[0]["error"]
        assert (state["state"], state["problem"]) == ("failing", deliveries[0]["error"])
        assert json.loads(stored[0][0])["request_payload"] == '{"n": 1}'
        assert given_up(engine)["count"] == 0
        assert engine.ask("GET", "/v2/other/fgs/deliveries").json["count"] == 0


def test_deliveries_that_were_given_up_are_discarded_from_the_command_line(tmp_path: Path) -> None:
    with webhook_receiver(status=410) as hook, engine_on(tmp_path / "data") as engine:
        for name, count in (("one", 2), ("two", 1)):
            engine.create(name, ECHO)
            engine.configure(name, destination_config={"on_success": to("WEBHOOK", url=hook.url)})
            for _ in range(count):
                engine.record(name, engine.accepted(name), wait=30)
        until(lambda: given_up(engine)["count"] == 3)  # a receiver that is gone for good ends deliveries at once
        first = next(delivery for delivery in given_up(engine)["deliveries"] if delivery["func_urn"].endswith(":one"))

        assert run(engine, "discard", str(first["delivery_id"])) == {"discarded": 1}
        assert run(engine, "discard", "--all", "--function", "two") == {"discarded": 1}
        assert run(engine, "discard", "--all") == {"discarded": 1}
        assert run(engine, "discard", "--all") == {"discarded": 0}
        assert functiond_here("discard", url="http://127.0.0.1:1").returncode == 2


def test_all_that_waits_for_a_destination_that_fails_is_seen_and_goes_when_one_of_it_is_sent_again(
    tmp_path: Path,
) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_RETRY__BASE="100") as engine:
        engine.create("one", ECHO)
        engine.configure("one", destination_config={"on_success": to("DIS", stream_name="late")})
        sent = []
        for tried in (1, 2, *[2] * 10):  # after the second failure the circuit breaker holds all further deliveries
            sent.append(engine.accepted("one", {}))
            engine.record("one", sent[-1], wait=30)
            while engine.metric("functiond_delivery_failures_total") < tried:
                pass
        pages: list[Any] = []
        after = 0
        while not pages or after:
            pages.append(engine.ask("GET", f"{FGS}/deliveries?limit=5&after={after}").json)
            after = pages[-1]["next_after"]
        retrying = [delivery for page in pages for delivery in page["retrying"]]
        listed = run(engine, "deliveries")
        shown = [run(engine, "deliveries", "--limit", "5", "--after", str(after)) for after in (0, 5, 10, 12)]

        here = f"/console/projects/{PROJECT}/deliveries?limit=5"
        first, second = visit(engine, here), visit(engine, f"{here}&after=5")

        assert [delivery["request_id"] for delivery in retrying] == sent
        assert [len(page["retrying"]) for page in pages] == [5, 5, 2]
        assert {delivery["destination_state"] for delivery in retrying} == {"failing"}
        assert all(delivery["next_try"] >= delivery["destination_next_try"] for delivery in retrying)
        assert (
            [delivery["delivery_id"] for delivery in listed]
            == [delivery["delivery_id"] for delivery in retrying]
            == list(range(1, 13))
        )
        assert [delivery["delivery_id"] for page in shown for delivery in page] == list(range(1, 13))
        shown = [[row for row in page.rows if "Delivery" in row] for page in (first, second)]
        assert [[row["Delivery"] for row in rows] for rows in shown] == [
            list("12345"),
            ["6", "7", "8", "9", "10"],
        ]
        assert (first.links("after="), second.links("after=")) == (["?limit=5&after=5"], ["?limit=5&after=10"])
        assert all("failing" in row["Destination"] for row in shown[0])

        assert engine.ask("POST", f"/v2/{PROJECT}/streams", {"stream_name": "late", "partition_count": 1}).status < 300
        assert run(engine, "redrive", "12") == [{"delivery_id": 12}]
        until(lambda: engine.metric("functiond_deliveries_total") >= 10)
        rest = until(lambda: len(left := given_up(engine)["retrying"]) <= 2 and left)
        assert {delivery["destination_state"] for delivery in rest} == {"ok"}
        run(engine, "redrive", *(str(delivery["delivery_id"]) for delivery in rest))
        until(lambda: not run(engine, "deliveries"))


def test_a_failed_invocation_is_sent_again_as_a_new_one(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", FAILS_ONCE.format(mark=str(tmp_path / "mark")))
        first = engine.accepted("one", {"n": 1}, X_Functiond_Priority="2")
        assert engine.record("one", first, wait=30)["status"] == "FAIL"

        [sent] = run(engine, "redrive", first)
        again = run(engine, "redrive", first, "--function", "one")
        record = engine.record("one", sent["new_request_id"], wait=30)

        assert again == [{**sent, "repeated": True}]
        assert (record["status"], record["payload"], record["source"]) == ("SUCCESS", '{"n": 1}', "REDRIVE")
        assert engine.record("one", first)["status"] == "FAIL"


def test_all_failed_invocations_of_a_function_are_sent_again_in_steps_and_none_twice(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", FAILS_UNTIL.format(mark=str(tmp_path / "mark")))
        a, b, c = [engine.accepted("one", {"n": n}) for n in range(3)]
        assert [engine.record("one", request_id, wait=30)["status"] for request_id in (a, b, c)] == ["FAIL"] * 3
        cancelled = engine.accepted("one", X_Functiond_Delay="600")
        engine.cancel("one", cancelled)
        path = f"{FGS}/functions/{urn_of('one')}/async-invocations/redrive"

        first = engine.ask("POST", path, {"failed": True, "limit": 2}).json
        sent = {entry["request_id"]: entry["new_request_id"] for entry in first["redriven"]}
        engine.record("one", sent[c], wait=30)  # the redriven one has failed again
        rest = engine.ask("POST", path, {"failed": True, "marker": first["next_marker"]}).json
        sent |= {entry["request_id"]: entry["new_request_id"] for entry in rest["redriven"]}
        assert [engine.record("one", sent[request_id], wait=30)["status"] for request_id in (b, a)] == ["FAIL"] * 2
        (tmp_path / "mark").touch()
        limited = run(engine, "redrive", "--failed", "--function", "one", "--limit", "1")
        redriven = run(engine, "redrive", "--failed", "--function", "one")
        again = {invocation["request_id"]: invocation["new_request_id"] for invocation in redriven}

        assert (first["count"], first["refused"], first["next_marker"], list(sent)) == (4, [], c, [c, b, a])
        assert (rest["count"], rest["next_marker"]) == (2, "")
        assert (list(again), {request_id: again[request_id] for request_id in sent}) == (
            [sent[a], sent[b], sent[c], c, b, a],
            sent,
        )
        assert limited == [{"request_id": sent[a], "new_request_id": again[sent[a]]}]
        assert {engine.record("one", again[sent[request_id]], wait=30)["status"] for request_id in sent} == {"SUCCESS"}
        assert len(rows(engine.data, "SELECT key FROM invocation")) == 10


def test_what_went_well_or_is_not_there_is_not_sent_again(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", ECHO)
        done = engine.accepted("one")
        engine.record("one", done, wait=30)
        path = f"{FGS}/functions/{urn_of('one')}/async-invocations/redrive"

        well = engine.ask("POST", path, {"request_ids": [done]})
        unknown = engine.ask("POST", path, {"request_ids": ["8d8f6e0e-0000-4000-8000-000000000000"]})
        neither = engine.ask("POST", f"{FGS}/deliveries/redrive", {})
        both = engine.ask("POST", path, {"request_ids": [done], "failed": True})
        lost = engine.ask("POST", path, {"failed": True, "marker": "2"})
        none = run(engine, "redrive", "--failed", "--function", "one")

        assert (well.status, "SUCCESS" in well.json["error_msg"]) == (400, True)
        assert (unknown.status, neither.status, both.status, lost.status, none) == (404, 400, 400, 400, [])
        assert functiond_here("redrive", url="http://127.0.0.1:1").returncode == 2
