"""Controls that instances follow, and the end of a cancelled handler, on an engine of its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, until, urn_of

PID = "import os\ndef handler(event, context):\n    return os.getpid()\n"
WARNED = """
import time

def handler(event, context):
    while not context.soft_timed_out:
        time.sleep(0.01)
    return "warned"
"""
STEPS = """
import os, time

def handler(event, context):
    context.report_progress(0.25, "one of <four>")
    while not os.path.exists(event["go"]):
        time.sleep(0.01)
    context.report_progress(0.75, "three of four")
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


def test_progress_is_shown_by_the_api_the_console_and_the_command(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("steps", STEPS)
    request_id = engine.accepted("steps", {"go": str(tmp_path / "go")})
    progress = until(lambda: engine.record("steps", request_id).get("progress"))

    assert progress == {"fraction": 0.25, "note": "one of <four>"}
    page = engine.ask("GET", f"/console/projects/{PROJECT}/invocations/{request_id}").body.decode()
    assert "25 % " in page
    assert "one of &lt;four&gt;" in page
    command = [sys.executable, "-m", "engine", "show", request_id, "--url", engine.url, "--project", PROJECT]
    assert "progress  25 % one of <four>" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "go").touch()
    ended = engine.record("steps", request_id, wait=60)
    assert (ended["status"], "progress" in ended) == ("SUCCESS", False)
    assert [attempt["progress"] for attempt in ended["attempts"]] == [{"fraction": 0.75, "note": "three of four"}]
    page = engine.ask("GET", f"/console/projects/{PROJECT}/invocations/{request_id}").body.decode()
    assert "75 % " in page
    assert "75 % three of four" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_cancelled_invocation_tidies_up_before_it_has_ended(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("tidy", TIDY)
    file = tmp_path / "file"
    request_id = engine.accepted("tidy", {"file": str(file)})
    until(file.exists)

    assert engine.cancel("tidy", request_id).status == 200
    record = engine.record("tidy", request_id)
    assert (record["status"], int(record["error_code"]), file.exists()) == ("FAIL", 4208, False)
    assert "tidied up" in str(record)
