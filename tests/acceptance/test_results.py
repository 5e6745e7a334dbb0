"""Results: the record with payload, result and log, and requests that wait for the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, urn_of
from tests.support.cli import functiond_here

ECHO = "def handler(event, context):\n    print('said')\n    return event\n"
HELD = """
import os, time

def handler(event, context):
    while not os.path.exists(context.getUserData("gate")):
        time.sleep(0.02)
    return "ended"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("results") / "data") as engine:
        engine.create("echo", ECHO)
        yield engine


def held(engine: EngineProcess, name: str, gate: Path) -> None:
    engine.create(name, HELD, user_data=json.dumps({"gate": str(gate)}))


def test_commands_and_console_tell_that_a_result_is_not_kept(engine: EngineProcess) -> None:
    engine.create("large", "def handler(event, context):\n    return 'x' * 300_000\n")
    note = "the result has 300000 bytes, more than 262144, and is not kept"
    url = f"http://127.0.0.1:{engine.port}"
    project = {"FUNCTIOND_PROJECT": PROJECT}
    ran = functiond_here("invoke", "large", "--async", "--wait", url=url, environ=project)
    request_id = ran.stderr.split()[0]
    shown = functiond_here("show", request_id, url=url, environ=project)
    page = engine.ask("GET", f"/console/projects/{PROJECT}/invocations/{request_id}").body.decode()

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", f"{request_id}\nfunctiond: {note}\n")
    assert f"  note      {note}\n" in shown.stdout
    assert f"{note.capitalize()}." in page


def test_a_waiting_request_is_answered_as_soon_as_it_ends(engine: EngineProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held(engine, "ends", gate)
    request_id = engine.accepted("ends")
    with ThreadPoolExecutor(3) as waiters:
        began = monotonic()
        waiting = [waiters.submit(engine.record, "ends", request_id, 60) for _ in range(3)]
        gate.touch()

        assert [one.result()["result"] for one in waiting] == ["ended"] * 3
        assert monotonic() - began < 30  # well before their limit of 60 s


def test_a_request_that_waits_in_vain_gets_the_present_state_after_that_time(
    engine: EngineProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    held(engine, "waits", gate)
    request_id = engine.accepted("waits")

    assert engine.record("waits", request_id, wait=0.2)["status"] in ("WAIT", "RUNNING")
    gate.touch()
    assert engine.record("waits", request_id, wait=30)["status"] == "SUCCESS"


def test_a_waiting_request_is_answered_on_a_cancel(engine: EngineProcess) -> None:
    request_id = engine.accepted("echo", X_Functiond_Delay="600")
    with ThreadPoolExecutor(1) as waiters:
        waiting = waiters.submit(engine.record, "echo", request_id, 60)
        engine.cancel("echo", request_id)

        assert waiting.result()["error_code"] == 4208


def test_results_outlive_the_engine(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("echo", ECHO)
        request_id = engine.accepted("echo", [1, 2])
        before = engine.record("echo", request_id, wait=30)
        engine.kill()
        engine.start()

        assert engine.record("echo", request_id) == before


def test_an_unknown_request_id_is_not_found(engine: EngineProcess) -> None:
    path = f"{BASE}/{urn_of('echo')}/async-invocations/01a21058-c3b4-7000-87b8-ad961b629ad6"

    assert engine.ask("GET", path).status == 404
