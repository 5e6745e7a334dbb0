"""Damaged data under a real engine: flipped bytes never run, and one bad page stops only its own rows."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic, sleep

import pytest

from engine.storage.sqlite.checks import find_problems
from tests.acceptance.engine_process import EngineProcess, engine_on, urn_of
from tests.support.pages import PageFile

pytestmark = pytest.mark.long

ECHO = "def handler(event, context):\n    return event\n"
DELAY = 5  #: seconds; the engine is stopped before


def waiting(data: Path, count: int, *, delay: float = DELAY, **event: object) -> dict[str, list[str]]:
    """Store delayed invocations of two functions, and stop the engine. Return their request ids by function."""
    with engine_on(data) as engine:
        for name in ("one", "two"):
            engine.create(name, ECHO)
        ids = {
            name: [engine.accepted(name, event or {"n": n}, X_Functiond_Delay=str(delay)) for n in range(count)]
            for name in ("one", "two")
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


@pytest.mark.parametrize(("table", "leaf"), [("invocation", 1), ("payload", 1), ("payload", -1)])
def test_a_bad_page_stops_only_its_own_rows(tmp_path: Path, table: str, leaf: int) -> None:
    data = tmp_path / "data"
    ids = waiting(data, 90, text="x" * 200)
    file = PageFile(data / "journal.db")
    lost = [page for page in file.pages(table) if page.is_leaf][leaf]
    file.smash(lost)

    with engine_on(data) as engine:
        new = engine.accepted("two", {"n": "new"})
        assert ended(engine, "two", new)["status"] == "SUCCESS"
        deadline, left = monotonic() + 60, -1.0
        while left != len(lost.keys) and monotonic() < deadline:
            sleep(0.1)
            left = engine.metric("functiond_backlog_invocations")
        health = engine.ask("GET", "/healthz")
        ready = engine.ask("GET", "/readyz")

        assert left == len(lost.keys)
        assert (health.status, health.json["status"]) == (200, "degraded")
        assert table in health.json["storage"]
        assert "functiond restore" in health.json["storage"]
        assert (ready.status, ready.json["status"]) == (200, "ready")
        assert engine.metric("functiond_damaged_ranges") == 1
        assert sum('"rows are damaged"' in line for line in engine.log) == 1
        assert engine.metric("functiond_journal_trouble") == 0
        listed = [engine.ask("GET", f"/v2/project1/fgs/functions/{urn_of(name)}/async-invocations") for name in ids]
        unreadable = len(lost.keys) if table == "invocation" else 0
        assert sum(each.json["count"] for each in listed) == 2 * 90 + 1 - unreadable
        assert ["x-functiond-incomplete" in each.headers for each in listed] == [bool(unreadable)] * 2
        console = engine.ask("GET", "/console/projects/project1/invocations").body
        assert (b"on damaged pages of the journal are left out" in console) == bool(unreadable)


@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while running"])
def test_new_outcomes_are_stored_although_the_newest_page_of_older_ones_is_damaged(
    tmp_path: Path, running: bool
) -> None:
    data = tmp_path / "data"
    with engine_on(data) as engine:
        engine.create("one", ECHO)
        engine.create("bad", "def handler(event, context):\n    raise ValueError(event)\n")
        old = engine.accepted("bad", {"text": "x"})
        ended(engine, "bad", old)
        engine.stop()
    file = PageFile(data / "journal.db")
    newest = [[page for page in file.pages(table) if page.is_leaf][-1] for table in ("result", "attempt")]
    if not running:
        for page in newest:
            file.smash(page)

    with engine_on(data) as engine:
        for page in newest if running else ():
            file.smash(page)
        bad, one = engine.accepted("bad", {"text": "y"}), engine.accepted("one", {"text": "y"})
        failed, succeeded = engine.record("bad", bad, wait=60), ended(engine, "one", one)
        assert (succeeded["status"], json.loads(str(succeeded["result"]))) == ("SUCCESS", {"text": "y"})
        assert (failed["status"], len(failed["attempts"])) == ("FAIL", 1)
        assert "damaged" not in {*succeeded, *failed}
        damaged, health = ended(engine, "bad", old).get("damaged", []), engine.ask("GET", "/healthz").json
        engine.stop()
    if running and damaged != ["attempts", "result"]:  # the engine had read a page before, and has written it again
        assert damaged or list(find_problems(data)) == []
    else:
        assert damaged == ["attempts", "result"]
        assert health["status"] == "degraded"
        assert {"result_1", "attempt_1"} <= set(health["storage"].replace(",", "").split())


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


def test_a_damaged_table_of_functions_refuses_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    waiting(data, 1)
    file = PageFile(data / "journal.db")
    file.smash(file.pages("function_version")[0])

    engine = EngineProcess(data)
    try:
        failure = engine.launch().exception(60)
        assert "functiond restore" in str(failure)
        assert "Traceback" not in str(failure)
    finally:
        engine.close()
