"""Results of functions, and their logs, read after and during the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, until, urn_of
from tests.support.cli import functiond_here
from tests.support.engine_process import CLEAN, ROOT
from tests.support.gateways import API
from tests.support.ports import free_port

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
    folder = tmp_path_factory.mktemp("logs")
    to_file = {"FUNCTIOND_LOGS__FORWARD": "file", "FUNCTIOND_LOGS__FILE": str(folder / "lines")}
    with engine_on(folder / "data", FUNCTIOND_PLUGINS__APIG__PORT=str(free_port()), **to_file) as engine:
        engine.create("talks", TALKS)
        yield engine


def there(engine: EngineProcess) -> dict[str, str]:
    """Return the environment variables by which the command line finds this engine."""
    return {"FUNCTIOND_URL": engine.url, "FUNCTIOND_PROJECT": PROJECT}


def forwarded(engine: EngineProcess, request_id: str, number: int) -> list[dict[str, Any]]:
    """Return the forwarded lines of a run when there are so many, and rotate their file."""
    file = engine.data.parent / "lines"

    def own() -> list[dict[str, Any]]:
        return [line for line in map(json.loads, file.read_text().split("\n")[:-1]) if line["request_id"] == request_id]

    lines = until(lambda: len(own()) == number and own())
    file.rename(file.with_suffix(".1"))
    file.touch()
    return lines


def test_every_line_is_kept_with_its_stream(engine: EngineProcess) -> None:
    request_id = engine.accepted("talks", {"lines": 2000})
    engine.record("talks", request_id, wait=30)

    run = functiond_here("logs", request_id, "--json", environ=there(engine))
    shown = functiond_here("logs", request_id, environ=there(engine)).stdout.splitlines()

    lines = [json.loads(line) for line in run.stdout.splitlines()]
    texts = [line["text"].rpartition(" INFO ")[2] for line in lines]
    assert {(line["stream"], text) for line, text in zip(lines, texts, strict=True) if "line" not in text} == {
        ("stdout", "printed"), ("logger", "logged"), ("stdout", "raw"), ("stderr", "trouble"),
    }  # fmt: skip
    assert [text for text in texts if "line" in text] == [f"line {number}" for number in range(2000)]
    [logged] = [line for line in shown if "logged" in line]
    assert logged.split(maxsplit=1)[1] == f"logger {request_id} INFO logged"
    sent = forwarded(engine, request_id, len(lines))
    assert [line["text"] for line in sent if "line" in line["text"]] == [f"line {number}" for number in range(2000)]
    assert engine.metric('functiond_forwarded_lines_total{result="lost"}') == 0


def test_commands_and_console_tell_that_a_result_is_not_kept(engine: EngineProcess) -> None:
    engine.create("large", "def handler(event, context):\n    return 'x' * 300_000\n")
    note = "the result has 300000 bytes, more than 262144, and is not kept"
    ran = functiond_here("invoke", "large", "--async", "--wait", environ=there(engine))
    request_id = ran.stderr.split()[0]
    shown = functiond_here("show", request_id, environ=there(engine))
    page = engine.ask("GET", f"/console/projects/{PROJECT}/invocations/{request_id}").body.decode()

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", f"{request_id}\nfunctiond: {note}\n")
    assert f"  note      {note}\n" in shown.stdout
    assert f"{note.capitalize()}." in page


def test_results_and_logs_outlive_the_engine(engine: EngineProcess) -> None:
    request_id = engine.accepted("talks", {"lines": 1})
    before = engine.record("talks", request_id, wait=30)
    engine.kill()
    engine.start()

    assert engine.record("talks", request_id) == before


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
        return functiond_here("logs", request_id, *options, environ=there(engine)).stdout.splitlines()

    of_each = [shown("--attempt", str(number)) for number in (1, 2, 3)]
    assert [lines[0][-14:] for lines in of_each] == [f"x of attempt {n}" for n in (1, 2, 3)]
    assert [lines[1].split(" failed with ")[0][-36:] for lines in of_each] == [request_id] * 3
    assert len(of_each[1][0]) > 9000
    assert shown() == of_each[2]
    sent = [(line["attempt"], line["level"], line["text"][-14:]) for line in forwarded(engine, request_id, 6)]
    assert sent[::2] == [(n, "INFO", f"x of attempt {n}") for n in (1, 2, 3)]
    assert [entry[:2] for entry in sent[1::2]] == [(n, "ERROR") for n in (1, 2, 3)]
    refused = functiond_here("logs", request_id, "--attempt", "4", environ=there(engine))
    assert (refused.returncode, "from 1 to 3" in refused.stderr) == (1, True)
    assert functiond_here("logs", "tries", "--attempt", "1", environ=there(engine)).returncode == 2


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


FAILS = """
def handler(event, context):
    kind = event.get("kind") or event.get("user_event") or event["path"]
    print("begins", kind)
    price(kind)

def price(kind):
    raise LookupError("no price of " + kind + ".")
"""
KINDS = ("sync", "async", "batch", "timer", "/gateway-sync", "/gateway-async")


def test_a_failed_call_of_each_kind_is_in_the_log_of_its_function(engine: EngineProcess) -> None:
    engine.create("fails", FAILS)
    command = [sys.executable, "-m", "engine", "logs", "fails", "--follow", "--errors"]
    with (
        ThreadPoolExecutor(1) as reader,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=CLEAN | there(engine)) as following,
    ):
        assert following.stdout is not None
        first = reader.submit(following.stdout.readline)
        while not first.done():  # until it follows
            engine.ask("POST", f"{BASE}/{urn_of('fails')}/invocations", {"kind": "early"})
        expected = {f"no price of {kind}." for kind in KINDS}
        timer = {"name": "soon", "schedule_type": "Cron", "schedule": "* * * * * *", "user_event": "timer"}
        trigger = engine.trigger("fails", "TIMER", timer)
        live = []
        for line in following.stdout:
            live.append(line)
            expected -= {text for text in expected if text in line}
            if "no price of timer." in line and trigger:
                engine.ask("DELETE", f"/v2/{PROJECT}/fgs/triggers/{urn_of('fails')}/TIMER/{trigger['trigger_id']}")
                trigger = None
                call_each_way(engine)
            if not expected:
                following.terminate()

    shown = functiond_here("logs", "fails", "--limit", "50", environ=there(engine)).stdout
    of_errors = functiond_here("logs", "fails", "--limit", "50", "--errors", environ=there(engine)).stdout

    for kind in KINDS:
        message = f"failed with 4002: function invocation exception, error: LookupError: no price of {kind}."
        assert f"stdout begins {kind}\n" in shown
        for log in (shown, of_errors):
            [after, *_] = log.split(message)[1:]
            frames = [line.split(" error  ")[1] for line in after.splitlines()[1:5]]
            assert [frame.rpartition(", line ")[2] for frame in frames[::2]] == ["5, in handler", "8, in price"]
    assert "begins" not in of_errors + "".join(live)
    assert "functiond" not in shown.replace("/functiond-", "")
    lines = [json.loads(line) for line in engine.log if '"fails"' in line]
    assert {line["event"] for line in lines} == {"run failed"}
    assert len(lines) < of_errors.count("failed with")


def call_each_way(engine: EngineProcess) -> None:
    """Call the function in each way but the timer's. Return when all have failed."""
    engine.accepted("fails", {"kind": "async"})
    engine.ask("POST", f"{BASE}/{urn_of('fails')}/invocations-async/batch", {"events": [{"event": {"kind": "batch"}}]})
    engine.ask("POST", f"{BASE}/{urn_of('fails')}/invocations", {"kind": "sync"})
    for mode in ("sync", "async"):
        api = {**API, "name": mode, "path": f"/gateway-{mode}", "func_info": {"invocation_type": mode, "timeout": 5000}}
        url = engine.trigger("fails", "APIG", api)["event_data"]["invoke_url"]
        with suppress(HTTPError):
            urlopen(url, timeout=60).close()
