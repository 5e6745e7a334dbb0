"""Controls that instances follow, and the end of a cancelled handler, on an engine of its own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, urn_of

PID = "import os\ndef handler(event, context):\n    return os.getpid()\n"
WARNED = """
import time

def handler(event, context):
    while not context.soft_timed_out:
        time.sleep(0.01)
    return "warned"
"""
TIDY = """
import os, time

def handler(event, context):
    open(event["file"], "w").close()
    try:
        time.sleep(300)
    finally:
        os.remove(event["file"])
        print("tidied up")
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data") as engine:
        yield engine


def control(engine: EngineProcess, name: str, **controls: Any) -> None:
    reply = engine.ask("PATCH", f"{BASE}/{urn_of(name)}/controls", controls)
    assert reply.status == 200, reply


def test_controls_replace_and_warn_instances_at_once_and_after_a_restart(engine: EngineProcess) -> None:
    engine.create("pid", PID)
    engine.create("warned", WARNED)

    def pids() -> set[bytes]:
        return {engine.ask("POST", f"{BASE}/{urn_of('pid')}/invocations", {}).body for _ in range(3)}

    assert len(pids()) == 1
    control(engine, "pid", recycle_requests=1)
    control(engine, "warned", soft_timeout=0.1)
    assert len(pids()) == 3
    assert engine.metric('functiond_instances_recycled_total{cause="requests"}') == 3
    engine.stop()
    engine.start()

    assert len(pids()) == 3
    assert b"warned" in engine.ask("POST", f"{BASE}/{urn_of('warned')}/invocations", {}).body


def test_a_cancelled_invocation_tidies_up_before_it_has_ended(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("tidy", TIDY)
    file = tmp_path / "file"
    request_id = engine.accepted("tidy", {"file": str(file)})
    deadline = monotonic() + 60
    while not file.exists():
        assert monotonic() < deadline, "the handler does not run"
        sleep(0.01)

    assert engine.cancel("tidy", request_id).status == 200
    record = engine.record("tidy", request_id)
    assert (record["status"], int(record["error_code"]), file.exists()) == ("FAIL", 4208, False)
    assert "tidied up" in str(record)
