"""Logs of functions, read after and during the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on
from tests.support.engine_process import CLEAN, ROOT, functiond

TALKS = """
import os, subprocess, sys

def handler(event, context):
    print("printed")
    context.getLogger().info("logged")
    subprocess.run(["sh", "-c", "echo raw; echo trouble >&2"])
    for number in range(event.get("lines", 0)):
        print("line", number)
"""
HELD = """
def handler(event, context):
    print(event["name"], "begins")
    with open(event["gate"]) as gate:  # opens when the test lets it
        gate.read()
    print(event["name"], "ends")
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("logs") / "data") as engine:
        engine.create("talks", TALKS)
        yield engine


def there(engine: EngineProcess) -> dict[str, str]:
    """Return the environment variables by which the command line finds this engine."""
    return {"FUNCTIOND_URL": f"http://127.0.0.1:{engine.port}", "FUNCTIOND_PROJECT": PROJECT}


def test_every_line_is_kept_with_its_stream(engine: EngineProcess) -> None:
    request_id = engine.accepted("talks", {"lines": 2000})
    engine.record("talks", request_id, wait=30)

    run = functiond("logs", request_id, "--json", environ=there(engine))

    lines = [json.loads(line) for line in run.stdout.splitlines()]
    texts = [line["text"].rpartition(" INFO ")[2] for line in lines]
    assert {(line["stream"], text) for line, text in zip(lines, texts, strict=True) if "line" not in text} == {
        ("stdout", "printed"), ("logger", "logged"), ("stdout", "raw"), ("stderr", "trouble"),
    }  # fmt: skip
    assert [text for text in texts if "line" in text] == [f"line {number}" for number in range(2000)]


def test_the_log_of_a_function_is_that_of_its_last_invocations(engine: EngineProcess) -> None:
    engine.create("twice", "def handler(event, context):\n    print(event)\n")
    for event in ("a", "b"):
        engine.record("twice", engine.accepted("twice", event), wait=30)

    run = functiond("logs", "twice", environ=there(engine))

    assert [line.split(maxsplit=2)[1:] for line in run.stdout.splitlines()] == [["stdout", "a"], ["stdout", "b"]]


ATTEMPTS = """
import os

def handler(event, context):
    number = len(os.listdir(event))
    open(os.path.join(event, str(number)), "w").close()
    print("x" * (9000 if number == 1 else 1), "of attempt", number + 1)
    raise ValueError("no")
"""


def test_three_attempts_keep_three_logs(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("tries", ATTEMPTS)
    engine.configure("tries", max_async_retry_attempts=2)
    request_id = engine.accepted("tries", str(tmp_path))
    engine.record("tries", request_id, wait=30)

    def shown(*options: str) -> list[str]:
        return functiond("logs", request_id, *options, environ=there(engine)).stdout.splitlines()

    of_each = [shown("--attempt", str(number)) for number in (1, 2, 3)]
    assert [(len(lines), lines[0][-14:]) for lines in of_each] == [(1, f"x of attempt {n}") for n in (1, 2, 3)]
    assert len(of_each[1][0]) > 9000
    assert shown() == of_each[2]
    refused = functiond("logs", request_id, "--attempt", "4", environ=there(engine))
    assert (refused.returncode, "from 1 to 3" in refused.stderr) == (1, True)
    assert functiond("logs", "tries", "--attempt", "1", environ=there(engine)).returncode == 2


def test_a_line_of_the_logger_is_shown_with_its_time_once(engine: EngineProcess) -> None:
    request_id = engine.accepted("talks", {})
    engine.record("talks", request_id, wait=30)

    shown = functiond("logs", request_id, environ=there(engine)).stdout.splitlines()

    [logged] = [line for line in shown if "logged" in line]
    assert logged.split(maxsplit=1)[1] == f"logger {request_id} INFO logged"


def test_two_requests_of_one_instance_have_each_their_lines_live(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("held", HELD, strategy_config={"concurrency": 1, "concurrent_num": 2})
    gates = {name: tmp_path / name for name in ("one", "two")}
    for gate in gates.values():
        os.mkfifo(gate)
    ids = {name: engine.accepted("held", {"name": name, "gate": str(gate)}) for name, gate in gates.items()}
    command = [sys.executable, "-m", "engine", "logs", ids["one"], "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=CLEAN | there(engine)) as following:
        assert following.stdout is not None
        first = following.stdout.readline()
        for name in ("two", "one"):
            gates[name].write_text("")
        rest = following.stdout.read()
        code = following.wait(30)

    log = engine.record("held", ids["two"], wait=30)["log"]
    assert [line.split(maxsplit=2)[2] for line in (first + rest).splitlines()] == ["one begins", "one ends"]
    assert (log, code) == ("two begins\ntwo ends\n", 0)
