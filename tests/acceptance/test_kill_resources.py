"""Resources of functions and projects. They survive a kill of the engine, and are deleted with their function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, urn_of
from tests.acceptance.triggering import GOOD
from tests.support.http_app import SOURCE, encoded, zipped

pytestmark = pytest.mark.long

ROOT = f"/v2/{PROJECT}/fgs"
HELLO = f"{BASE}/{urn_of('hello')}"


def ask(engine: EngineProcess, method: str, path: str, body: object = None) -> Any:
    reply = engine.ask(method, path, body)
    assert reply.status < 300, reply
    return json.loads(reply.body or b"null")


def fill(engine: EngineProcess) -> None:
    """Create a function with one resource of every kind."""
    package = encoded(zipped(shared__py="VALUE = 1\n"))
    new = {"name": "shared", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}
    dependency = ask(engine, "POST", f"{ROOT}/dependencies/version", new)
    engine.create("hello", "import shared\n" + SOURCE, depend_version_list=[dependency["id"]])
    ask(engine, "POST", f"{HELLO}/events", {"name": "first", "content": encoded('{"k": 1}')})
    ask(engine, "POST", f"/v2/{PROJECT}/functions/hello/tags/create", {"tags": [{"key": "owner", "value": "me"}]})
    ask(engine, "PUT", f"{HELLO}/reservedinstances", {"count": 1})
    ask(engine, "PUT", f"{HELLO}/tracing", {"tracing_ak": "access", "tracing_sk": "secret"})
    engine.trigger("hello", "SMN", {"topic_urn": "urn:smn:x"})
    engine.trigger(
        "hello", "TIMER", {"name": "t", "schedule_type": "Rate", "schedule": "30d"}, trigger_status="DISABLED"
    )


def all_of_it(engine: EngineProcess) -> dict[str, Any]:
    paths = {
        "dependencies": f"{ROOT}/dependencies",
        "function": f"{HELLO}/config",
        "events": f"{HELLO}/events",
        "tags": f"/v2/{PROJECT}/functions/hello/tags",
        "reserved": f"{ROOT}/functions/reservedinstanceconfigs",
        "tracing": f"{HELLO}/tracing",
        "triggers": f"{ROOT}/triggers/{urn_of('hello')}",
    }
    return {name: ask(engine, "GET", path) for name, path in paths.items()}


def test_all_resources_are_there_after_a_kill(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        before = all_of_it(engine)
        engine.kill(children=True)
        engine.start()

        assert all_of_it(engine) == before
        assert before["events"]["count"] == before["reserved"]["count"] == before["dependencies"]["count"] == 1
        record = engine.record("hello", engine.accepted("hello", {"k": 1}), wait=60)
        assert record["status"] == "SUCCESS"


def test_code_of_dependencies_stays_at_a_start_and_goes_when_nobody_names_it(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        (dependency,) = ask(engine, "GET", f"{ROOT}/dependencies")["dependencies"]
        folders = len([entry for entry in (tmp_path / "code").iterdir() if entry.is_dir()])
        ask(engine, "DELETE", HELLO.removesuffix(":latest"))
        engine.kill(children=True)
        engine.start()
        kept = len([entry for entry in (tmp_path / "code").iterdir() if entry.is_dir()])
        ask(engine, "DELETE", f"{ROOT}/dependencies/{dependency['dep_id']}/version/1")
        engine.kill(children=True)
        engine.start()

        assert (folders, kept) == (2, 1)
        assert list((tmp_path / "code").iterdir()) == []


def test_the_log_names_triggers_without_a_source_and_keys_that_were_passed_over(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        engine.create("hello", SOURCE)
        trigger = engine.trigger("hello", "DMS", {**GOOD["DMS"], "invented": "quiet"})["trigger_id"]
        engine.stop()

    lines = [json.loads(line) for line in engine.log]
    [passed] = [line for line in lines if line["event"].startswith("unknown keys ignored")]
    [missing] = [line for line in lines if line["event"].startswith("trigger has no source")]
    assert (passed["trigger"], passed["kind"], passed["keys"]) == (trigger, "DMS", ["invented"])
    assert (missing["trigger"], missing["level"]) == (trigger, "warning")
    assert "quiet" not in "".join(engine.log)
