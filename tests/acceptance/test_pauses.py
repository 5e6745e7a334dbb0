"""Pause of a function in a real engine: intake stays open, synchronous calls are refused, a restart keeps the pause."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, ECHO, HELD, PROJECT, EngineProcess, begun, held_event, urn_of
from tests.support.cli import functiond_here
from tests.support.engine_process import functiond_on_a_terminal

pytestmark = pytest.mark.long

CONTROLS = f"{BASE}/{urn_of('job')}/controls"


@pytest.fixture
def engine(engine: EngineProcess) -> Iterator[EngineProcess]:
    """Return the engine of all tests with the function job; delete its functions afterwards."""
    engine.create("job", ECHO)
    yield engine
    engine.delete_all()


def run(engine: EngineProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return functiond_here(*arguments, "--project", PROJECT, url=engine.url)


def test_a_pause_keeps_intake_open_and_survives_a_kill(engine: EngineProcess) -> None:
    assert engine.ask("PATCH", CONTROLS, {"paused": True, "pause_reason": "a migration"}).status == 200
    waiting = [engine.accepted("job", {"n": n}) for n in range(3)]
    call = engine.ask("POST", f"{BASE}/{urn_of('job')}/invocations", {})
    assert (call.status, "a migration" in call.json["error_msg"]) == (409, True)

    engine.kill()
    engine.start()

    assert engine.ask("GET", "/readyz").json["paused"].endswith("until they are resumed: job")
    engine.create("other", ECHO)
    later = engine.accepted("other")
    assert engine.record("other", later, wait=60)["status"] == "SUCCESS"  # the scheduler works
    assert {engine.record("job", request_id)["status"] for request_id in waiting} == {"WAIT"}

    engine.ask("PATCH", CONTROLS, {"paused": False})

    assert {engine.record("job", request_id, wait=60)["status"] for request_id in waiting} == {"SUCCESS"}
    assert engine.ask("POST", f"{BASE}/{urn_of('job')}/invocations", {"n": 1}).status == 200


def test_what_runs_goes_on_during_a_pause_and_what_waits_grows_too_old(engine: EngineProcess, tmp_path: Path) -> None:
    event = held_event(tmp_path)
    engine.create("held", HELD)
    running, path = engine.accepted("held", event), CONTROLS.replace("job", "held")
    begun(tmp_path, 1)
    engine.ask("PATCH", path, {"paused": True})
    waiting = engine.accepted("held", event)
    (tmp_path / "gate").touch()
    assert engine.record("held", running, wait=60)["status"] == "SUCCESS"
    assert engine.record("held", waiting, wait=0.2)["status"] == "WAIT"
    engine.configure("held", max_async_event_age_in_seconds=1)  # holds at once
    later = engine.accepted("held", event)

    ends = [engine.record("held", request_id, wait=60) for request_id in (waiting, later)]
    assert [(end["status"], end["error_code"]) for end in ends] == [("DISCARD", 150430)] * 2
    assert engine.ask("GET", path).json["paused"] is True
    assert begun(tmp_path, 1) == [running]


def test_the_command_line_pauses_explains_lists_and_resumes(engine: EngineProcess) -> None:
    paused = run(engine, "pause", "job", "--reason", "so [it] is")
    assert (paused.returncode, paused.stdout) == (0, "paused job\n"), paused.stderr
    assert engine.ask("GET", CONTROLS).json["pause_reason"] == "so [it] is"
    engine.accepted("job")
    second = engine.accepted("job")
    explained = run(engine, "explain", second)
    assert explained.stdout.splitlines() == [
        f"{second} WAIT",
        "  paused    the function is paused (so [it] is); resume it",
        "  order     one invocation of the function starts before it",
    ], explained.stderr
    assert run(engine, "show", second).stdout.startswith(f"{second} WAIT (paused)\n")
    engine.create("other", ECHO)
    lines = {line.split()[0]: line.split()[-1] for line in run(engine, "functions").stdout.splitlines()}
    assert (lines["NAME"], lines["job"], lines["other"] != "paused") == ("STATE", "paused", True)
    marks = {load["func_name"]: load.get("paused") for load in json.loads(run(engine, "functions", "--json").stdout)}
    assert marks == {"job": True, "other": None}
    resumed = run(engine, "resume", "job", "--json")

    assert json.loads(resumed.stdout)["paused"] is False, resumed.stderr


def test_the_command_line_shows_and_changes_controls(engine: EngineProcess) -> None:
    changed = run(engine, "controls", "job", "rate=0.5", "burst=3")
    shown = run(engine, "controls", "job", "--json")
    assert changed.stdout.splitlines()[2:4] == ["rate             0.5", "burst            3"], changed.stderr
    assert (json.loads(shown.stdout)["rate"], json.loads(shown.stdout)["burst"]) == (0.5, 3)

    wrong = run(engine, "controls", "job", "bursts=3")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "functiond: 'bursts=3' is not a control and its value: did you mean burst=…?\n",
    )
    twice = run(engine, "controls", "job", "burst=3", "burst=4")
    assert (twice.returncode, twice.stderr) == (2, "functiond: burst is given twice: give each control once\n")
    no_number = run(engine, "controls", "job", "rate=NaN")
    assert (no_number.returncode, "rate is 'NaN': must be a number from 0" in no_number.stderr) == (1, True)
    reason = run(engine, "controls", "job", "paused=true", "pause_reason=2026")
    assert reason.stdout.splitlines()[:2] == ["paused           true", "pause_reason     2026"], reason.stderr
    refused = run(engine, "controls", "job", "burst=0")
    assert refused.returncode == 1
    assert "burst" in refused.stderr


def test_a_purge_shows_on_a_terminal_how_many_it_has_ended(engine: EngineProcess) -> None:
    engine.ask("PATCH", CONTROLS, {"paused": True})
    for quiet in ([], ["--json"]):
        for n in range(3):
            engine.accepted("job", {"n": n})
        code, shown = functiond_on_a_terminal(
            "purge", "job", "--project", PROJECT, *quiet, url=engine.url, TERM="xterm"
        )
        assert code == 0, shown
        assert (" cancelled 3\n" in shown) is not bool(quiet)


def test_what_was_purged_is_sent_again_and_one_with_another_event(engine: EngineProcess) -> None:
    engine.ask("PATCH", CONTROLS, {"paused": True})
    purged = engine.accepted("job", {"n": 1})
    assert run(engine, "purge", "job").returncode == 0
    engine.ask("PATCH", CONTROLS, {"paused": False})
    options = ("--failed", "--function", "job", "--error-code", "4208", "--project", PROJECT, "--json")
    again = json.loads(functiond_here("redrive", *options, url=engine.url).stdout)
    edited = run(engine, "rerun", purged, "--data", '{"n": 2}', "--json")

    assert [entry["request_id"] for entry in again] == [purged]
    assert engine.record("job", again[0]["new_request_id"], wait=60)["result"] == '{"n": 1}'
    new = json.loads(edited.stdout)["request_id"]
    assert engine.record("job", new, wait=60)["result"] == '{"n": 2}', edited.stderr
