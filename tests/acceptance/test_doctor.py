"""``functiond doctor`` beside healthy, failing, silent and missing engines, in real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.acceptance.engine_process import ECHO, to, until
from tests.support.cli import functiond_here
from tests.support.credentials import credentials_file, key, token
from tests.support.engine_process import EngineProcess, engine_process
from tests.support.ports import free_port
from tests.support.webhooks import webhook_receiver

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doctor")


@pytest.fixture(scope="module")
def engine(data: Path) -> Iterator[EngineProcess]:
    with engine_process(data) as running:
        yield running


def findings(run: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the findings by their first word."""
    return {finding["where"].split()[0]: finding for finding in json.loads(run.stdout)["findings"]}


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_a_healthy_engine_has_no_findings(engine: EngineProcess) -> None:
    text, values = functiond_here("doctor", url=engine.url), functiond_here("doctor", "--json", url=engine.url)

    assert (text.returncode, values.returncode) == (0, 0), text
    assert "nothing is wrong" in text.stdout
    assert json.loads(values.stdout)["findings"] == []


def test_a_failing_trigger_and_destination_are_named_with_cause_and_next_step(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    hook = to("WEBHOOK", url=nowhere())
    address = nowhere().removeprefix("http://")
    topic = {"instance_id": "i", "topic_ids": ["t"], "batch_size": 1, "kafka_connect_address": address}
    with engine_process(tmp_path) as engine, httpx.Client(base_url=f"{engine.url}/v2/default/fgs", timeout=60) as api:
        assert functiond_here("deploy", tmp_path / "echo.py", url=engine.url).returncode == 0
        api.put("/functions/echo/async-invoke-config", json={"destination_config": {"on_success": hook}})
        trigger = {"trigger_type_code": "KAFKA", "trigger_status": "ACTIVE", "event_data": topic}
        api.post("/triggers/echo", json=trigger).raise_for_status()
        api.post("/functions/echo/invocations-async", json={}).raise_for_status()

        def diagnosed() -> subprocess.CompletedProcess[str] | Literal[False]:
            run = functiond_here("doctor", "--json", url=engine.url)
            return findings(run).keys() == {"trigger", "destination"} and run

        run = until(diagnosed)

    shown = findings(run)
    assert run.returncode == 1
    assert "[Errno 111]" in shown["destination"]["problem"]
    assert "for a day" in shown["destination"]["advice"]
    assert f'"{address}": [Errno 111]' in shown["trigger"]["problem"]
    assert "correct the trigger's options" in shown["trigger"]["advice"]


def test_an_engine_that_does_not_reply_is_told_from_one_that_does_not_run(engine: EngineProcess) -> None:
    os.kill(engine.process.pid, signal.SIGSTOP)
    try:
        run = functiond_here("doctor", "--json", url=engine.url)
    finally:
        os.kill(engine.process.pid, signal.SIGCONT)

    assert run.returncode == 1
    assert list(findings(run)) == ["engine"]
    assert "did not reply within" in findings(run)["engine"]["problem"]
    assert "event loop stalled" in findings(run)["engine"]["advice"]


def test_without_an_engine_the_machine_is_checked(tmp_path: Path) -> None:
    run = functiond_here("doctor", "--json", "--data-dir", tmp_path / "none", url=nowhere())
    shown = findings(run)

    assert run.returncode == 1
    assert "start one with" in shown["engine"]["problem"]
    assert "data" not in shown
    assert not (tmp_path / "none").exists()


def test_two_projects_without_a_sandbox_are_named(tmp_path: Path) -> None:
    environ = {**credentials_file(tmp_path, token("t" * 16, "p1"), token("u" * 16, "p2")), "PATH": str(tmp_path)}
    run = functiond_here("doctor", "--json", "--data-dir", tmp_path / "none", url=nowhere(), environ=environ)

    assert (findings(run)["sandbox"]["serious"], run.returncode) == (True, 1)
    assert "no engine starts: the credentials are of 2 projects" in findings(run)["sandbox"]["advice"]


def test_an_engine_elsewhere_is_found_by_its_lock(engine: EngineProcess, data: Path) -> None:
    run = functiond_here("doctor", "--json", "--data-dir", data / "data", url=nowhere())

    assert f"process {engine.process.pid} has locked it" in findings(run)["data"]["problem"]
    assert "--url" in findings(run)["data"]["advice"]


def test_a_taken_port_a_full_disk_and_a_missing_journal_are_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "code").mkdir(parents=True)
    (tmp_path / "data" / "code" / "package").touch()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings = {
            "FUNCTIOND_HTTP__PORT": str(taken.getsockname()[1]),
            "FUNCTIOND_STORAGE__FREE_SPACE": str(1 << 60),
        }
        run = functiond_here("doctor", "--data-dir", tmp_path / "data", url=nowhere(), environ=settings)

    assert run.returncode == 1
    assert "Address already in use" in run.stdout
    assert "MiB are free on its disk" in run.stdout
    assert "journal.db is missing beside stored packages\n  restore a backup" in run.stdout


def test_a_clock_behind_the_journal_a_file_as_directory_and_a_wrong_setting_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "journal.db").touch()
    later = time.time() + 7200
    os.utime(tmp_path / "data" / "journal.db", (later, later))
    (tmp_path / "file").touch()

    clock = functiond_here("doctor", "--data-dir", tmp_path / "data", url=nowhere())
    folder = functiond_here("doctor", "--data-dir", tmp_path / "file", url=nowhere())
    setting = functiond_here("doctor", url=nowhere(), environ={"FUNCTIOND_QUEUE__ROWS": "0", "HOME": str(tmp_path)})

    assert "clock: is 2.0 hours behind" in clock.stdout
    assert "is no directory that user" in folder.stdout
    assert "settings: queue.rows" in setting.stdout


def test_an_interpreter_that_the_settings_name_must_run(tmp_path: Path) -> None:
    environ = {"FUNCTIOND_EXECUTOR__NODE": str(tmp_path / "node"), "FUNCTIOND_EXECUTOR__PYTHON": str(tmp_path / "py")}
    run = functiond_here("doctor", "--json", "--data-dir", tmp_path / "none", url=nowhere(), environ=environ)

    serious = {finding["where"]: finding["serious"] for finding in json.loads(run.stdout)["findings"]}
    assert serious["runtime Node.js18.15"]
    assert serious["runtime Python3.10"]


def test_another_program_at_the_address_is_no_engine() -> None:
    with webhook_receiver() as hook:
        run = functiond_here("doctor", "--json", url=hook.url.rstrip("/"))

    assert (run.returncode, list(findings(run))) == (1, ["engine"])
    assert "another program" in findings(run)["engine"]["problem"]


def test_without_credentials_the_project_cannot_be_looked_at(tmp_path: Path) -> None:
    settings = credentials_file(tmp_path, key("AK1", "a-secret-of-the-key", "default"))
    keys = {"FUNCTIOND_ACCESS_KEY": "AK1", "FUNCTIOND_SECRET_KEY": "a-secret-of-the-key"}
    with engine_process(tmp_path, environ=settings) as engine:
        anonymous = functiond_here("doctor", "--json", url=engine.url)
        known = functiond_here("doctor", "--json", url=engine.url, environ=keys)

    assert (anonymous.returncode, known.returncode) == (1, 0)
    assert "FUNCTIOND_ACCESS_KEY" in findings(anonymous)["project"]["advice"]
