"""Resources of functions and projects. They survive a kill of the engine, and are deleted with their function."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, rows, urn_of
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
    function = {
        "func_name": "hello",
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 60,
        "memory_size": 128,
        "code_type": "inline",
        "func_code": {"file": encoded("import shared\n" + SOURCE)},
        "depend_version_list": [dependency["id"]],
    }
    ask(engine, "POST", BASE, function)
    ask(engine, "POST", f"{HELLO}/events", {"name": "first", "content": encoded('{"k": 1}')})
    ask(engine, "POST", f"/v2/{PROJECT}/functions/hello/tags/create", {"tags": [{"key": "owner", "value": "me"}]})
    ask(engine, "PUT", f"{HELLO}/reservedinstances", {"count": 1})
    ask(engine, "PUT", f"{HELLO}/tracing", {"tracing_ak": "access", "tracing_sk": "secret"})


def all_of_it(engine: EngineProcess) -> dict[str, Any]:
    paths = {
        "dependencies": f"{ROOT}/dependencies",
        "function": f"{HELLO}/config",
        "events": f"{HELLO}/events",
        "tags": f"/v2/{PROJECT}/functions/hello/tags",
        "reserved": f"{ROOT}/functions/reservedinstanceconfigs",
        "tracing": f"{HELLO}/tracing",
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


def test_what_a_project_used_in_a_month_outlives_the_engine(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        engine.record("hello", engine.accepted("hello", {"k": 1}), wait=60)
        engine.stop()
        engine.start()
        engine.record("hello", engine.accepted("hello", {"k": 1}), wait=60)

        path = f"{ROOT}/functions/statistics?filter=monthly_report&option="
        months = [month for option in "01" for month in ask(engine, "GET", f"{path}{option}")["count"]]

    assert sum(month["value"] for month in months) == 2


def test_a_functions_resources_go_with_it_and_those_of_the_project_stay(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        fill(engine)
        ask(engine, "DELETE", HELLO.removesuffix(":latest"))
        left = ask(engine, "GET", f"{ROOT}/dependencies")["count"]
        reserved = ask(engine, "GET", f"{ROOT}/functions/reservedinstances")["count"]
        engine.signal(signal.SIGKILL)
        engine.wait()

        kinds = rows(tmp_path, "SELECT kind FROM resource")

    assert (left, reserved) == (1, 0)
    assert kinds == [("dependency",)]


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
