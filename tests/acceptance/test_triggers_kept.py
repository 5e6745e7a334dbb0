"""Triggers after a kill of the engine, and log lines about triggers without a source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.acceptance.triggering import GOOD

FGS = f"/v2/{PROJECT}/fgs/triggers"
SOURCE = "def handler(event, context):\n    return event\n"
TIMER = {"name": "t", "schedule_type": "Rate", "schedule": "30d", "sync_execution": True}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_TRIGGERS__TIMER_SYNC_EXECUTION="true") as engine:
        engine.create("hello", SOURCE)
        yield engine


def create(engine: EngineProcess, kind: str, data: dict[str, Any]) -> Reply:
    return engine.ask("POST", f"{FGS}/{urn_of('hello')}", {"trigger_type_code": kind, "event_data": data})


def listed(engine: EngineProcess) -> Any:
    return engine.ask("GET", f"{FGS}/{urn_of('hello')}").json


def said(engine: EngineProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, engine.log) if line["event"].startswith(event)]


def test_triggers_are_there_after_the_engine_was_killed(engine: EngineProcess) -> None:
    created = [create(engine, "TIMER", TIMER).json, create(engine, "SMN", {"topic_urn": "urn:smn:x"}).json]
    gone = create(engine, "LTS", {"log_group_id": "g", "log_topic_id": "t"}).json["trigger_id"]
    path = f"{FGS}/{urn_of('hello')}/TIMER/{created[0]['trigger_id']}"
    created[0] = engine.ask("PUT", path, {"trigger_status": "DISABLED"}).json
    engine.ask("DELETE", f"{FGS}/{urn_of('hello')}/LTS/{gone}")

    engine.kill()
    engine.start()

    assert listed(engine) == created
    assert created[0]["event_data"] == TIMER


def test_a_deleted_function_leaves_no_trigger_behind(engine: EngineProcess) -> None:
    create(engine, "SMN", {"topic_urn": "urn:smn:x"})
    engine.ask("DELETE", f"/v2/{PROJECT}/fgs/functions/{urn_of('hello').removesuffix(':latest')}")

    engine.kill()
    engine.start()
    engine.create("hello", SOURCE)

    assert listed(engine) == []


def test_the_log_says_what_has_no_source_and_which_keys_were_passed_over(engine: EngineProcess) -> None:
    trigger = create(engine, "DMS", {**GOOD["DMS"], "invented": "quiet"}).json["trigger_id"]

    engine.stop()

    (passed,) = said(engine, "unknown keys ignored")
    (missing,) = said(engine, "trigger has no source")
    assert (passed["trigger"], passed["kind"], passed["keys"]) == (trigger, "DMS", ["invented"])
    assert (missing["trigger"], missing["level"]) == (trigger, "warning")
    assert "quiet" not in "".join(engine.log)
