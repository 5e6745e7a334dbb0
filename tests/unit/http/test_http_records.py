"""Lists of asynchronous invocations, complete records, explanations, cancelling, and running again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from msgspec.structs import replace

from engine.model import Request, State
from engine.model.identity import key_at
from engine.model.urn import parse_urn
from engine.pipeline.explanation import MOST_AHEAD
from engine.protocols import FIRST
from tests.support.http_app import BASE, Answer, Api, urn_of
from tests.support.raw_client import connect, read_answers

pytestmark = pytest.mark.usefixtures("hello")


async def invoked(api: Api, name: str = "hello", version: str = ":latest") -> str:
    sent = await api.send("POST", f"/{urn_of(name, version)}/invocations-async", {"k": "é"})
    request_id: str = sent.json["request_id"]
    return request_id


RECORDS = f"/{urn_of()}/async-invocations"
#: User-Agents: those of the vendor's provider for Terraform, of its SDKs, and of any other client.
TERRAFORM = ["terraform-provider-iac golangsdk/2.0.0", "golangsdk/2.0.0", "HashiCorp Terraform/1.9.0 golangsdk/3.1.0"]
OTHERS = ["huaweicloud-usdk-go/3.0", "huaweicloud-usdk-go/3.0;terraform-provider-iac", "huaweicloud-usdk-python/3.0"]
OTHERS += ["curl/8.5.0", "functiond/0.1.0"]


async def listed(
    api: Api,
    query: str = "",
    kind: str = "async-invocations",
    version: str = ":latest",
    agent: str | None = "curl/8.5.0",
) -> Answer:
    headers = {} if agent is None else {"User-Agent": agent}
    return await api.send("GET", f"/{urn_of(version=version)}/{kind}?{query}", headers=headers)


def ids(answer: Answer) -> list[str]:
    return [item["request_id"] for item in answer.json["invocations"]]


def utc(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S")


async def test_a_waiting_record_has_no_times_and_an_ended_one_has_both(api: Api) -> None:
    waiting, ended = await invoked(api), await invoked(api)
    api.engine.finish(ended, State.FAIL, 4002, "boom")

    first, second = (await listed(api)).json["invocations"]

    assert first == {"request_id": waiting, "status": "WAIT", "error_code": 0, "error_message": ""}
    assert (second["status"], second["error_code"], second["error_message"]) == ("FAIL", 4002, "boom")
    assert datetime.strptime(second["start_time"], "%Y-%m-%dT%H:%M:%S") <= datetime.fromisoformat(second["end_time"])


@pytest.mark.parametrize("kind", ["async-invocations", "active-async-invocations"])
async def test_the_form_of_code_and_marker_is_the_one_that_the_client_reads(api: Api, kind: str) -> None:
    await invoked(api)

    def fields(answer: Answer) -> tuple[object, object]:
        [item] = answer.json["invocations"]
        return item.get("error_code"), answer.json.get("next_marker")

    text = [fields(await listed(api, kind=kind, agent=agent)) for agent in TERRAFORM]
    integers = [fields(await listed(api, kind=kind, agent=agent)) for agent in OTHERS]
    unnamed = [fields(await listed(api, kind=kind, agent=agent)) for agent in (None, "")]

    assert text == [("", "1")] * len(text)
    assert integers == [(0, 1)] * len(integers)
    assert unnamed == [(None, None)] * 2


async def test_terraform_reads_more_records_than_a_page_holds(api: Api) -> None:
    sent = [await invoked(api) for _ in range(230)]
    api.engine.finish(sent[7], State.FAIL, 4002, "boom")

    seen: list[dict[str, str]] = []
    marker, pages = "0", 0
    while True:  # as the provider does: it converts the marker without a check, and a number ends the process
        page = (await listed(api, f"limit=100&marker={marker}", agent=TERRAFORM[0])).json
        seen, pages = seen + page["invocations"], pages + 1
        if len(page["invocations"]) < 100:
            break
        assert isinstance(page["next_marker"], str)
        if page["next_marker"] in (marker, "0"):
            break
        marker = page["next_marker"]

    assert ([record["request_id"] for record in seen], pages) == (sent, 3)
    assert [record["error_code"] for record in seen if record["error_code"]] == ["4002"]


async def test_the_status_filters(api: Api) -> None:
    waiting, failed, done = [await invoked(api) for _ in range(3)]
    api.engine.finish(failed, State.FAIL, 4002)
    api.engine.finish(done)

    assert ids(await listed(api, "status=FAIL")) == [failed]
    assert ids(await listed(api, "status=WAIT%2CSUCCESS")) == [waiting, done]
    assert ids(await listed(api, "", "active-async-invocations")) == [waiting]
    assert ids(await listed(api, "status=SUCCESS", "active-async-invocations")) == []


async def test_a_list_and_a_record_name_the_trigger_and_the_cause(api: Api) -> None:
    await invoked(api)
    urn = parse_urn(urn_of(), region="", project="")
    cause = api.engine.identity.next_key(api.engine.clock.now())
    request_id = await api.engine.accept(
        Request(function=urn, payload=b"1", source="TIMER", trigger_id="t", cause=cause)
    )

    assert ids(await listed(api, "trigger_id=t")) == ids(await listed(api, "trigger_id=t&after=0")) == [request_id]
    record = (await api.send("GET", f"{RECORDS}/{request_id}")).json
    assert (record["trigger_id"], record["caused_by"]) == ("t", api.engine.identity.request_id(cause))


async def test_a_list_is_of_the_version_or_alias_in_its_urn(api: Api) -> None:
    await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
    await api.send("POST", f"/{urn_of()}/aliases", {"name": "live", "version": "v1"})
    sent = {qualifier: await invoked(api, version=qualifier) for qualifier in (":latest", ":v1", ":!live")}

    shown = {qualifier: ids(await listed(api, version=qualifier)) for qualifier in sent}

    assert shown[":latest"] == [sent[":latest"]]
    assert shown[":v1"] == [sent[":v1"], sent[":!live"]]
    assert shown[":!live"] == [sent[":!live"]]
    assert ids(await listed(api, version="")) == list(sent.values())
    assert ids(await listed(api, f"request_id={sent[':v1']}")) == [sent[":v1"]]


async def test_records_can_be_listed_by_up_to_ten_ids_and_an_unknown_id_gives_an_empty_list(api: Api) -> None:
    one, two, _ = [await invoked(api) for _ in range(3)]

    found, unknown = await listed(api, f"request_id={one}"), await listed(api, "request_id=nobody")
    active = await listed(api, f"requests={one}%2C{two}%2Cnobody", "active-async-invocations")
    too_many = await listed(api, "requests=" + "%2C".join("r" * 11), "active-async-invocations")

    assert (ids(found), ids(active)) == ([one], [one, two])
    assert (too_many.status, too_many.json["error_code"]) == (400, "FSS.1001")
    assert (unknown.status, unknown.json) == (200, {"invocations": [], "count": 0, "next_marker": 0})


async def test_without_times_a_list_covers_the_last_hour_but_not_for_a_named_record(api: Api) -> None:
    old = await invoked(api)
    _make_older(api, old, hours=2)
    aged = api.engine.identity.request_id(next(iter(api.engine.rows)))

    assert ids(await listed(api)) == []
    assert ids(await listed(api, f"query_begin_time={utc(-3)}")) == [aged]
    assert ids(await listed(api, f"query_begin_time={utc(-3)}&query_end_time={utc(-2.5)}")) == []
    assert ids(await listed(api, f"request_id={aged}")) == [aged]


async def test_times_are_utc_to_the_second_and_the_last_second_counts(api: Api) -> None:
    request_id = await invoked(api)
    moment = api.engine.rows[api.engine.identity.key_of(request_id) or 0].accepted_at
    second = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")

    same = await listed(api, f"query_begin_time={second}&query_end_time={second}")

    assert ids(same) == [request_id]


FILTERS = (
    "status=DONE",
    "limit=x",
    "marker=-1",
    "query_begin_time=now",
    "query_end_time=7h",
    "trigger_id=" + "x" * 300,
)
PLACES = ("after=x", "after=1:2", "after=4:0.0:9999999999999999999", "after=4:nan:1")
REFUSED = {**dict.fromkeys(FILTERS, "FSS.1001"), **dict.fromkeys(PLACES, "FSS.0400")}


@pytest.mark.parametrize(("query", "code"), REFUSED.items())
async def test_a_filter_or_place_that_cannot_be_is_refused(api: Api, query: str, code: str) -> None:
    answer = await listed(api, query)

    assert (answer.status, answer.json["error_code"]) == (400, code)
    assert query.partition("=")[0] in answer.json["error_msg"]


async def test_a_record_of_another_function_is_not_found(api: Api) -> None:
    await api.create("other")
    request_id = await invoked(api, "other")

    for named in (request_id, "nobody"):
        for method, end in (("GET", ""), ("GET", "/explain"), ("POST", "/run-again")):
            answer = await api.send(method, f"{RECORDS}/{named}{end}")
            assert (answer.status, answer.json["error_code"]) == (404, "FSS.0404")


@pytest.mark.parametrize("wait", ["61", "-1", "long", "nan"])
async def test_a_wait_has_bounds(api: Api, wait: str) -> None:
    answer = await api.send("GET", f"{RECORDS}/{await invoked(api)}?wait={wait}")

    assert (answer.status, answer.json["error_code"]) == (400, "FSS.1001")


async def test_only_what_is_here_and_not_over_can_be_cancelled(api: Api) -> None:
    await api.create("other")
    foreign, over, here = await invoked(api, "other"), await invoked(api), await invoked(api)
    api.engine.finish(over)

    for request_id, kind in (("nobody", "force"), (foreign, "force"), (over, "force"), (here, "recursive")):
        answer = await api.send("POST", f"/{urn_of()}/cancel", {"request_id": request_id, "type": kind})
        assert (answer.status, answer.json["error_code"]) == (400, "FSS.0400")
        assert ("Invalid RequestId" in answer.json["error_msg"]) is (kind == "force")
    assert not api.engine.rows[api.engine.identity.key_of(here) or 0].state.final


def _make_older(api: Api, request_id: str, hours: float) -> None:
    """Replace the record's key, and with it the request id, by one that is ``hours`` older."""
    record = api.engine.rows.pop(api.engine.identity.key_of(request_id) or 0)
    key = key_at(record.accepted_at - hours * 3600)
    api.engine.rows[key] = replace(record, key=key, request_id=api.engine.identity.request_id(key))


async def test_a_list_goes_on_behind_the_last_record_of_a_page(api: Api) -> None:
    sent = [await invoked(api) for _ in range(5)]
    seen, after = list[str](), "0"
    while after:
        page = await listed(api, f"limit=2&after={after}")
        seen += ids(page)
        after = page.json["next_after"]

    assert seen == sent
    assert "next_after" not in (await listed(api, "limit=2")).json


async def test_a_wait_for_the_end_lasts_no_longer_than_its_client(api: Api) -> None:
    request_id = await invoked(api)
    path = f"{BASE}/{urn_of()}/async-invocations/{request_id}?wait=60"
    async with connect(api.port) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await api.engine.waited.wait()
        client.end()
        with anyio.fail_after(30):
            [answer] = read_answers(await client.rest())

    assert (answer.status, json.loads(answer.body)["status"]) == (200, "WAIT")


# --- explanations --------------------------------------------------------------------------------------------


async def test_an_explanation_has_place_and_reasons(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    api.engine.ahead = 3
    counted = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json
    api.engine.ahead = MOST_AHEAD
    more = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json
    api.engine.ahead = None
    without = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json

    assert (counted["request_id"], counted["status"], counted["ahead"]) == (sent, "WAIT", 3)
    assert counted["reasons"] == [{"reason": "order", "text": "3 invocations of the function start before it"}]
    assert (counted["ahead_is_more"], more["ahead_is_more"], "ahead" in without) == (False, True, False)


async def test_a_record_says_that_its_function_is_paused_while_it_waits(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    assert "paused" not in (await api.send("GET", f"{RECORDS}/{sent}")).json
    await api.send("PATCH", f"/{urn_of()}/controls", {"paused": True})
    assert (await api.send("GET", f"{RECORDS}/{sent}")).json["paused"] is True
    api.engine.finish(sent)

    assert "paused" not in (await api.send("GET", f"{RECORDS}/{sent}")).json


# --- invocations that are run again --------------------------------------------------------------------------


async def ended(api: Api) -> str:
    request_id: str = (await api.invoke(body={"n": 1})).json["request_id"]
    api.engine.finish(request_id, State.SUCCESS)
    return request_id


async def test_the_event_is_sent_again_as_it_was_or_edited(api: Api) -> None:
    old = await ended(api)
    plain = await api.send("POST", f"{RECORDS}/{old}/run-again")
    body = {"event": [1, {"a": None}], "priority": 9, "delay": 2.5}
    edited = await api.send("POST", f"{RECORDS}/{old}/run-again", body, {"Idempotency-Key": "k"})

    assert (plain.status, edited.status, plain.json["request_id"] != old) == (202, 202, True)
    first, second = api.engine.requests[1:]
    assert (first.payload, first.idempotency_key, first.source) == (b'{"n": 1}', "", "REDRIVE")
    assert (second.payload, second.priority, second.delay) == (b'[1, {"a": null}]', 9, 2.5)
    assert second.idempotency_key == "k"


@pytest.mark.parametrize(
    "body", [{"events": 1}, {"priority": 10}, {"delay": -1}, b"[", {"event": "x" * (257 << 10)}, b"null1"]
)
async def test_a_wrong_body_invokes_nothing(api: Api, body: object) -> None:
    old = await ended(api)

    assert (await api.send("POST", f"{RECORDS}/{old}/run-again", body)).status in (400, 406, 413)
    assert len(api.engine.requests) == 1


@pytest.mark.parametrize("priority", [10, None, "x"])
async def test_a_wrong_field_beside_an_event_is_named(api: Api, priority: object) -> None:
    body = {"event": {"a": None}, "priority": priority}
    refused = await api.send("POST", f"{RECORDS}/{await ended(api)}/run-again", body)

    assert (refused.status, len(api.engine.requests)) == (400, 1)
    assert "priority is" in refused.json["error_msg"]
    assert "whole number from 0 to 9" in refused.json["error_msg"]


async def test_an_invocation_that_has_not_ended_is_not_run_again(api: Api) -> None:
    waiting = (await api.invoke()).json["request_id"]
    refused = await api.send("POST", f"{RECORDS}/{waiting}/run-again")

    assert (refused.status, "is WAIT" in refused.json["error_msg"]) == (400, True)


# --- cancelling by filter ------------------------------------------------------------------------------------

PATH = f"/{urn_of(version='')}/async-invocations/cancel"


async def test_without_a_body_all_that_waits_is_cancelled_step_by_step(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    first = await api.send("POST", PATH)
    second = await api.send("POST", PATH, {"marker": first.json["next_marker"]})
    last = await api.send("POST", PATH, {"marker": second.json["next_marker"]})

    assert (first.status, first.json["cancelled"], last.json["next_marker"]) == (200, [sent], "")
    assert [place for _, _, place, _ in api.engine.cancel_steps] == [FIRST, (1, 0.5, 7), (2, 0.5, 7)]
    assert {states for _, states, _, _ in api.engine.cancel_steps} == {frozenset({State.WAIT})}


async def test_the_filter_reaches_the_engine(api: Api) -> None:
    body = {"status": "WAIT,RUNNING", "source": "TIMER", "query_begin_time": "2030-01-01T00:00:00", "limit": 7}
    await api.send("POST", PATH, body)

    ((selection, states, _, limit),) = api.engine.cancel_steps
    assert (selection.source, selection.begin, limit) == ("TIMER", 1893456000.0, 7)
    assert states == {State.WAIT, State.RUNNING}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "FAIL"},
        {"limit": 501},
        {"marker": "some"},
        {"marker": "1:nan:2"},
        {"query_end_time": "soon"},
        {"state": "WAIT"},
    ],
)
async def test_a_wrong_filter_cancels_nothing(api: Api, body: dict[str, object]) -> None:
    assert (await api.send("POST", PATH, body)).status == 400
    assert api.engine.cancel_steps == []
