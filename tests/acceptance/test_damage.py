"""Damaged data under a real engine: flipped bytes never run, and a bad page stops its own rows or the engine."""

from __future__ import annotations

import json
from pathlib import Path
from time import sleep

import pytest

from tests.acceptance.engine_process import ECHO, HELD, EngineProcess, engine_on, until, urn_of
from tests.support.damage import rows_of
from tests.support.pages import PageFile

pytestmark = pytest.mark.long

IDS = ("one", "two")
DELAY = 5  #: seconds; the engine is stopped before


def waiting(data: Path, count: int, *, delay: float = DELAY, **event: object) -> dict[str, list[str]]:
    """Store delayed invocations of two functions, and stop the engine. Return their request ids by function."""
    with engine_on(data) as engine:
        for name in IDS:
            engine.create(name, ECHO)
        ids = {
            name: [engine.accepted(name, event or {"n": n}, X_Functiond_Delay=str(delay)) for n in range(count)]
            for name in IDS
        }
        engine.stop()
    return ids


def ended(engine: EngineProcess, name: str, request_id: str) -> dict[str, object]:
    record: dict[str, object] = engine.record(name, request_id, wait=60)
    return record


def test_a_flipped_byte_in_an_event_never_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ids = waiting(data, 1, delay=0.1, text="first event")
    with engine_on(data) as engine:
        [request_id] = [engine.accepted("one", {"amount": 1000000}, X_Functiond_Delay=str(DELAY))]
        engine.stop()
    PageFile(data / "journal.db").replace(b"1000000", b"9000000")

    with engine_on(data) as engine:
        sound, damaged = ended(engine, "one", ids["one"][0]), ended(engine, "one", request_id)
        health = engine.ask("GET", "/healthz")

        assert (sound["status"], json.loads(str(sound["result"]))) == ("SUCCESS", {"text": "first event"})
        assert (damaged["status"], damaged["error_code"], damaged["result"]) == ("FAIL", 150500, "")
        assert (damaged["damaged"], damaged["payload"]) == (["payload"], "")
        assert "checksum" in str(damaged["error_message"])
        assert (health.status, health.json) == (200, {"status": "ok"})
        redrive = engine.ask(
            "POST",
            "/v2/project1/fgs/functions/urn:fss:local-1:project1:function:default:one:latest/async-invocations/redrive",
            {"request_ids": [request_id]},
        )
        assert b"damaged" in redrive.body


def test_events_on_other_pages_run_beside_a_bad_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    waiting(data, 90, text="x" * 200)
    file = PageFile(data / "journal.db")
    lost = [page for page in file.pages("payload") if page.is_leaf][1]
    file.smash(lost)

    with engine_on(data) as engine:
        new = engine.accepted("two", {"n": "new"})
        assert ended(engine, "two", new)["status"] == "SUCCESS"
        until(lambda: engine.metric("functiond_backlog_invocations") == len(lost.keys))
        health = engine.ask("GET", "/healthz")
        ready = engine.ask("GET", "/readyz")

        assert (health.status, health.json["status"]) == (200, "degraded")
        assert f"functiond recover {data}" in health.json["storage"]
        assert (ready.status, ready.json["status"]) == (200, "ready")
        assert engine.metric("functiond_journal_damaged") == 1
        assert sum("a page of the journal is damaged" in line for line in engine.log) == 1
        assert engine.metric("functiond_journal_trouble") == 0
        listed = [engine.ask("GET", f"/v2/project1/fgs/functions/{urn_of(name)}/async-invocations") for name in IDS]
        assert sum(each.json["count"] for each in listed) == 2 * 90 + 1


def test_an_engine_that_stops_at_a_bad_page_exits_with_2_and_each_later_start_says_the_same(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engine_on(data) as engine:
        engine.create("held", HELD)
        engine.stop()
    file = PageFile(data / "journal.db")
    file.smash(file.pages("idempotency")[0])

    with engine_on(data) as engine:
        gate = tmp_path / "gate"
        accepted = [engine.accepted("held", {"runs": str(tmp_path / "runs"), "gate": str(gate)}) for _ in range(3)]
        replies = [engine.send("held", {}, Idempotency_Key="a"), engine.send("held", {})]
        assert [reply.status for reply in (*replies, engine.ask("GET", "/readyz"))] == [503] * 3
        assert b"a page of the journal is damaged" in replies[1].body
        sleep(2)  # longer than the engine looks whether something runs
        gate.touch()
        assert engine.wait() == 2
        last = json.loads(engine.log[-1])["event"]
        assert last.endswith(f"run `functiond recover {data}`")
        with pytest.raises(AssertionError, match="the engine ended"):
            engine.start()
        assert engine.wait() == 2
        assert json.loads(engine.log[-1])["event"] == last
    assert rows_of(data, "SELECT state, count(*) FROM invocation GROUP BY state") == [(3, 3)], accepted


def test_changed_code_never_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engine_on(data) as engine:
        engine.create("one", "def handler(event, context):\n    return 1000000\n")
        engine.stop()
    [package] = (data / "code").glob("*.package")
    unpacked, source = package.with_suffix("") / "index.py", package.read_bytes()
    unpacked.write_bytes(source.replace(b"1000000", b"9000000"))

    with engine_on(data) as engine:
        record = ended(engine, "one", engine.accepted("one"))
        assert (record["status"], record["result"]) == ("SUCCESS", "1000000")
        assert sum("changed files of a code package restored" in line for line in engine.log) == 1
        engine.stop()
    for file in (unpacked, package):
        file.write_bytes(source.replace(b"1000000", b"9000000"))
    with engine_on(data) as engine:
        reply = engine.ask("POST", f"/v2/project1/fgs/functions/{urn_of('one')}/invocations", {})
        assert b"9000000" not in reply.body
        assert b"damaged" in reply.body
