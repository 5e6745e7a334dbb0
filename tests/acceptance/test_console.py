"""Console of a running engine: its pages after real invocations."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import ECHO, PROJECT, EngineProcess, engine_on, to, until, urn_of
from tests.acceptance.triggering import GOOD

HOME = "/console/"
HERE = f"{HOME}projects/{PROJECT}"
EVIL = "<script>alert(1)</script>"
BAD = f"""
def handler(event, context):
    context.getLogger().info("trying %s", event)
    print("{EVIL}")
    raise OSError("{EVIL}")
"""
SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"
NOWHERE = to("SMN", topic_urn=f"urn:smn:local-1:{PROJECT}:gone")
PAGES = ["/functions", "/invocations", "/triggers", "/deliveries"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with a working, a failing and a slow function, and a trigger whose port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        data = tmp_path_factory.mktemp("console") / "data"
        # The first retry is immediate, the next one an hour later, so that pages do not change during the test.
        settings = {"FUNCTIOND_RETRY__FACTOR": "100000", "FUNCTIOND_RETRY__LONGEST": "3600"}
        with engine_on(data, FUNCTIOND_PLUGINS__APIG__PORT=port, **settings) as engine:
            engine.create("good", ECHO, description=EVIL)
            engine.create("bad", BAD)
            engine.create("slow", SLOW, timeout=600, package="batch")
            engine.configure("bad", max_async_retry_attempts=1, destination_config={"on_failure": NOWHERE})
            engine.trigger("good", "APIG", {**GOOD["APIG"], "protocol": "HTTP"})
            until(lambda: (source := source_of(engine, "APIG"))["state"] == "failing" and source["failures"] == 2)
            yield engine


@pytest.fixture(scope="module")
def done(engine: EngineProcess) -> list[str]:
    """Run invocations of ``good`` to their end."""
    ids = [engine.accepted("good", {"n": n}) for n in range(4)]
    assert [engine.record("good", request_id, wait=30)["status"] for request_id in ids] == ["SUCCESS"] * 4
    return ids


@pytest.fixture(scope="module")
def failed(engine: EngineProcess) -> str:
    request_id = engine.accepted("bad", {"said": EVIL})
    assert engine.record("bad", request_id, wait=30)["status"] == "FAIL"
    return request_id


def test_the_first_page_tells_that_work_is_taken_and_what_became_of_it(
    engine: EngineProcess, done: list[str], failed: str
) -> None:
    text = visit(engine, HOME).text

    ended = [engine.metric(f'functiond_outcomes_total{{state="{state}"}}') for state in ("SUCCESS", "FAIL")]
    assert min(ended) > 0
    assert "Ready New work is accepted" in text
    assert "Isolation process" in text
    assert "SUCCESS {:.0f} FAIL {:.0f} DISCARD 0".format(*ended) in text
    assert f"by source API {sum(ended):.0f}" in text
    assert "failing 1" in text
    assert "Free disk space" in text


def test_the_first_page_tells_why_no_work_is_taken(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_STORAGE__FREE_SPACE=str(1 << 60)) as engine:
        text = visit(engine, HOME).text

    assert "Not ready New work is refused. Needs attention 1 Acceptance of requests The disk has" in text
    assert "new work is refused below 1,073,741,824 GiB" in text


def test_a_function_has_its_versions_aliases_and_links(engine: EngineProcess) -> None:
    base = f"/v2/{PROJECT}/fgs/functions/good"
    engine.ask("POST", f"{base}/versions", {"version": "v1"})
    engine.ask("POST", f"{base}/aliases", {"name": "prod", "version": "v1"})

    page = visit(engine, f"{HERE}/functions")

    rows = {row["Function"].split()[0]: row for row in page.rows}
    assert rows["good"]["Versions and aliases"] == "latest, v1 prod → v1"
    assert rows["good"]["Links"].endswith("invocations 1 trigger")
    assert rows["bad"]["Versions and aliases"].endswith("1 retry, up to 1 h old; failure to SMN")
    assert rows["batch:slow"]["Runtime"].startswith("Python3.10 index.handler")
    assert page.links("batch%3Aslow/invocations")


def test_what_waits_and_runs_is_counted_by_function(engine: EngineProcess) -> None:
    urn = urn_of("slow").replace(":default:", ":batch:")
    engine.ask("PUT", f"/v2/{PROJECT}/fgs/functions/{urn}/config-max-instance", {"max_instance_num": 1})
    ids = [engine.ask("POST", f"/v2/{PROJECT}/fgs/functions/{urn}/invocations-async", {}).json for _ in range(3)]
    until(lambda: engine.metric('functiond_instances{state="busy"}'))

    rows = {row["Function"].split()[0]: row for row in visit(engine, f"{HERE}/functions").rows}
    listed = visit(engine, f"{HERE}/invocations?function=batch:slow")
    running = visit(engine, f"{HERE}/invocations?status=RUNNING")

    for entry in ids:
        body = {"request_id": entry["request_id"], "type": "force"}
        engine.ask("POST", f"/v2/{PROJECT}/fgs/functions/{urn}/cancel", body)
    assert (rows["batch:slow"]["Waiting"], rows["batch:slow"]["Running"]) == ("2", "1")
    assert listed.column("Status") == ["RUNNING", "WAIT", "WAIT"]
    assert running.column("Function") == ["batch:slow"]


def source_of(engine: EngineProcess, kind: str) -> dict[str, Any]:
    """Return the source state of the only trigger of a kind."""
    [state] = [
        trigger["source"] for trigger in listed(engine, "triggers", "triggers") if trigger["trigger_type_code"] == kind
    ]
    source: dict[str, Any] = state
    return source


def listed(engine: EngineProcess, what: str, name: str) -> list[Any]:
    """Return a list of the project from the API."""
    items: list[Any] = engine.ask("GET", f"/v2/{PROJECT}/fgs/{what}").json[name]
    return items


def test_a_list_is_read_page_by_page(engine: EngineProcess, done: list[str]) -> None:
    path, read = f"{HERE}/invocations?function=good&limit=3", list[str]()
    page = visit(engine, path)
    read += page.column("Request id")
    [older] = page.links("after=")
    page = visit(engine, f"{HERE}/invocations{older}")

    assert read + page.column("Request id") == done[::-1]
    [newer] = page.links("before=")
    assert visit(engine, f"{HERE}/invocations{newer}").column("Request id") == read
    assert visit(engine, f"{HERE}/functions?limit=2").links("marker=") == ["?marker=2"]
    assert visit(engine, f"{HERE}/functions?limit=2&marker=2").column("Function") == ["batch:slow"]


def test_all_that_is_known_of_one_invocation_is_on_its_page(engine: EngineProcess, failed: str) -> None:
    page = visit(engine, f"{HERE}/invocations/{failed}")

    [pending] = [row for row in page.rows if "Destination" in row]
    second, first = page.text.partition("Attempt 2 FAIL")[2].split("Attempt 1 FAIL")
    assert ("No retry:" in second, "Retry in" in first) == (True, True)
    assert (f"stdout {EVIL}" in second, f"stdout {EVIL}" in first) == (True, True)
    assert page.text.count("4002 function invocation exception") == 3
    assert pending["Destination"].startswith('SMN {"topic_urn"')
    assert f"{failed} FAIL" in page.text
    assert f'{{ "said": "{EVIL}" }}' in page.text
    assert '"errorType": "OSError"' in page.text
    assert "logger" in page.text
    assert visit(engine, f"{HERE}/invocations/{failed}?attempt=1").reply.status == 200
    assert visit(engine, f"{HERE}/invocations/{failed}?attempt=3").reply.status == 400


def test_what_is_owed_and_fails_is_listed_with_why_and_when_again(engine: EngineProcess, failed: str) -> None:
    [told] = until(lambda: [row for row in listed(engine, "deliveries", "retrying") if row["tries"] == 2])

    destination, row = visit(engine, f"{HERE}/deliveries").rows

    assert (destination["Used by"], destination["Waiting"]) == ("bad on failure", "1")
    assert (row["Request id"], row["Tries"]) == (failed, "2")
    assert "Topic not found" in row["Error"]
    assert row["Destination"].endswith("failing")
    assert row["Next try"].startswith(told["next_try"].replace("T", " ").rstrip("Z"))
    assert destination["State"].startswith(("failing", "paused"))
    assert "Topic not found" in destination["Last cause"]
    assert (destination["Waiting"], destination["Given up"]) == ("1", "0")


def test_a_trigger_that_fails_shows_why_and_when_it_is_tried_again(engine: EngineProcess) -> None:
    told = source_of(engine, "APIG")

    [row] = visit(engine, f"{HERE}/triggers?function=good").rows

    assert row["Name"] == "api APIG"
    assert row["Status, source"].startswith("Active failing since ")
    assert "address already in use" in row["Problem"]
    assert f"next try {told['next_try'].replace('T', ' ').rstrip('Z')} , after 2 failures in a row" in row["Problem"]
    assert told["next_try"] > told["since"]


BROKEN = """
from engine import Plugin

class Service:
    async def run(self, context, *, task_status):
        raise OSError("no such cable")

plugin = Plugin(kinds=("LAMP",), serve=lambda settings: Service())
"""


def test_a_service_that_fails_is_told_of_where_triggers_are(tmp_path: Path) -> None:
    (tmp_path / "lamp.py").write_text(BROKEN)
    settings = {"FUNCTIOND_PLUGIN": "lamp", "PYTHONPATH": str(tmp_path), "FUNCTIOND_RETRY__BASE": "60"}
    with engine_on(tmp_path / "data", **settings) as engine:
        text = visit(engine, f"{HERE}/triggers").text

    assert "Service of lamp failing OSError: no such cable Restart in " in text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", [HOME, *(HERE + page for page in PAGES), f"{HOME}static/console.js", f"{HOME}gone"])
def test_browsers_are_told_to_trust_nothing_else(engine: EngineProcess, path: str, method: str) -> None:
    reply = engine.ask(method, path)

    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert {name: reply.headers[name] for name in HARD} == HARD
    assert (reply.body == b"") is (method == "HEAD")
    assert int(reply.headers["content-length"]) > 0


HARD = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def test_nothing_can_be_sent_to_the_console(engine: EngineProcess) -> None:
    assert [engine.ask(method, HOME, {}).status for method in ("POST", "PUT", "DELETE")] == [405] * 3


def test_people_are_shown_the_way_and_programs_find_nothing(engine: EngineProcess) -> None:
    shown = [engine.ask("GET", path, headers={"Accept": "text/html,*/*"}) for path in ("/", "/console")]
    refused = engine.ask("GET", "/", headers={"Accept": "*/*"})

    assert [(reply.status, reply.headers["location"]) for reply in shown] == [(307, HOME)] * 2
    assert (refused.status, refused.json["error_code"]) == (404, "FSS.0404")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{HOME}nowhere", 404),
        (f"{HERE}/invocations/00000000-0000-7000-8000-000000000000", 404),
        (f"{HERE}/invocations?status=DONE", 400),
        (f"{HERE}/invocations?after=x", 400),
        (f"{HOME}projects/no%20project/functions", 400),
    ],
)
def test_what_is_not_there_is_told_on_a_page(engine: EngineProcess, path: str, status: int) -> None:
    page = visit(engine, path)

    assert page.reply.status == status
    assert page.text.count(str(status)) == 1
    assert "To the overview" in page.text


def test_an_invocation_is_shown_in_its_own_project_only(engine: EngineProcess, failed: str) -> None:
    assert visit(engine, f"{HOME}projects/another/invocations/{failed}").reply.status == 404


def test_the_console_can_be_switched_off(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_HTTP__CONSOLE="false") as engine:
        replies = [engine.ask("GET", path, headers={"Accept": "text/html"}) for path in ("/", HOME)]

    assert [(reply.status, reply.json["error_code"]) for reply in replies] == [(404, "FSS.0404")] * 2
