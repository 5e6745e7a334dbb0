"""What the README says is tried: its settings, its commands, its lines to paste, its programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.cli.client import Client
from engine.cli.commands import make_app
from engine.cli.show_settings import all_settings, markdown_table
from tests.support.engine_process import CLEAN, ROOT, EngineProcess, engine_process, functiond

README = (ROOT / "README.md").read_text()
DEFAULT_URL = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def block(language: str, part: str) -> str:
    """The one block that holds ``part``."""
    (found,) = [text for text in blocks(language) if part in text]
    return found


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("readme"), "--demo") as engine:
        assert any("Ctrl-C" in line for line in engine.said)  # by then the function is there
        yield engine


def test_the_table_of_settings_is_that_of_the_engine() -> None:
    assert markdown_table(list(all_settings())) in section("Settings")


def test_the_table_of_commands_is_complete() -> None:
    told = set(re.findall(r"^\| `(\w+)", section("Command line"), re.MULTILINE))

    assert told == {name for name in make_app(()) if not name.startswith("-")}


def test_every_option_in_the_table_of_commands_exists() -> None:
    rows = re.findall(r"^\| `(\w+)[^|]*?` \|(.*)\|$", section("Command line").replace("\\|", "/"), re.MULTILINE)
    told = {name: set(re.findall(r"--[a-z][a-z-]+", row)) for name, row in rows}
    helps = {name: functiond(name, "--help").stdout for name, options in told.items() if options}

    missing = [(name, one) for name, options in told.items() for one in options if f" {one} " not in helps[name]]
    assert missing == []
    assert len(helps) >= 4


def test_the_curl_lines_work(demo: EngineProcess) -> None:
    accepted, result = [
        subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
        for line in block("sh", "invocations-async").replace(DEFAULT_URL, demo.url).splitlines()
    ]

    assert accepted.startswith("HTTP/1.1 202 ")
    assert "request_id" in json.loads(accepted.splitlines()[-1])
    assert json.loads(result) == {"hello": "you"}


def test_the_triggers_are_made_as_they_stand(demo: EngineProcess) -> None:
    line = block("sh", "fgs/triggers/").replace(DEFAULT_URL, demo.url)
    timer = json.loads(subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout)
    api = httpx.post(
        f"{demo.url}/v2/default/fgs/triggers/hello", json=json.loads(block("json", "APIG")), trust_env=False
    )
    listed = {one["trigger_id"] for one in json.loads(functiond("triggers", "--json", url=demo.url).stdout)}

    assert (timer["trigger_type_code"], api.status_code) == ("TIMER", 201), api.text
    assert listed == {timer["trigger_id"], api.json()["trigger_id"]}


def test_each_kind_of_trigger_is_made_from_what_its_row_says(demo: EngineProcess) -> None:
    rows = re.findall(r"^\| ([A-Z]{3}.*?) \|.*\| `(\{.*\})` \|$", section("Triggers"), re.MULTILINE)
    kinds = [(kind, event_data) for cell, event_data in rows for kind in re.findall(r"\b[A-Z]{3,}\b", cell)]
    offered = httpx.get(f"{demo.url}/v2/default/fgs/triggertypes", trust_env=False)
    refused = []
    for kind, event_data in kinds:
        body = {"trigger_type_code": kind, "event_data": json.loads(event_data)}
        made = httpx.post(f"{demo.url}/v2/default/fgs/triggers/hello", json=body, trust_env=False)
        if made.status_code == 201:
            functiond_deleted(demo, kind, made.json()["trigger_id"])
        else:
            refused.append((kind, made.text))

    assert refused == []
    assert {kind for kind, _ in kinds} | {"APIG", "DEDICATEDGATEWAY", "APIC"} == set(offered.json())


def functiond_deleted(demo: EngineProcess, kind: str, trigger_id: str) -> None:
    url = f"{demo.url}/v2/default/fgs/triggers/hello/{kind}/{trigger_id}"
    httpx.delete(url, trust_env=False).raise_for_status()


def test_what_can_be_tried_without_another_server_is_taken(demo: EngineProcess) -> None:
    lines = block("sh", "notifications/topics").replace(DEFAULT_URL, demo.url).splitlines()
    event = {"trigger_type_code": "EVENTGRID", "event_data": {"channel_id": "mine"}}
    made = httpx.post(f"{demo.url}/v2/default/fgs/triggers/hello", json=event, trust_env=False)
    for line in lines:
        subprocess.run(["bash", "-c", line.replace("curl ", "curl -sS --fail-with-body ")], check=True)
    functiond_deleted(demo, "EVENTGRID", made.json()["trigger_id"])

    assert len(lines) == 5


def test_destinations_are_set_as_it_stands(demo: EngineProcess) -> None:
    line = block("sh", "async-invoke-config").replace(DEFAULT_URL, demo.url)
    answer = json.loads(subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout)

    assert answer["destination_config"]["on_failure"]["destination"] == "SMN"


def test_the_sdk_snippet_works(demo: EngineProcess, tmp_path: Path) -> None:
    program = block("python", "huaweicloudsdk").replace(DEFAULT_URL, demo.url)

    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**CLEAN, "HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"[0-9a-f-]{36}\n", run.stdout)


def test_the_function_can_be_deployed_as_it_stands(demo: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text(block("python", "getLogger"))
    command = re.search(r"functiond (deploy FOLDER [^`]*)`", README)
    assert command

    words = command[1].replace("FOLDER", str(tmp_path)).split()
    deployed = functiond(*words, "--name", "greeter", url=demo.url)
    invoked = functiond("invoke", "greeter", "--data", '{"name": "you"}', url=demo.url)

    assert deployed.returncode == 0, deployed.stderr
    assert json.loads(invoked.stdout)["hello"] == "you"


def test_the_plugin_carries_outcomes(tmp_path: Path) -> None:
    (tmp_path / "appender.py").write_text(block("python", "destination=FileDestination"))
    (tmp_path / "index.py").write_text("def handler(event, context):\n    return 1\n")
    os.mkfifo(tmp_path / "outcomes")  # reading it waits for the delivery
    spec = {"destination": "FILE", "param": json.dumps({"path": str(tmp_path / "outcomes")})}

    with engine_process(tmp_path, "--plugin", "appender", cwd=tmp_path) as engine:
        functiond("deploy", tmp_path / "index.py", "--name", "one", url=engine.url)
        Client(engine.url, "default", "").put("/one/async-invoke-config", {"destination_config": {"on_success": spec}})
        functiond("invoke", "one", "--async", url=engine.url)
        outcome = json.loads((tmp_path / "outcomes").read_text())

    assert outcome["response_payload"] == "1"


def test_the_trigger_calls_a_function_with_each_line(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(block("python", "trigger=LinesTrigger"))
    (tmp_path / "text").write_text("one\ntwo\n")
    os.mkfifo(tmp_path / "told")
    tell = f"open({str(tmp_path / 'told')!r}, 'w').write(event['line'] + '\\n')"
    (tmp_path / "index.py").write_text(f"def handler(event, context):\n    {tell}\n")
    body = {"trigger_type_code": "LINES", "event_data": {"path": str(tmp_path / "text")}}

    with (
        engine_process(tmp_path, "--plugin", "lines", cwd=tmp_path) as engine,
        (tmp_path / "told").open("r+b", buffering=0) as told,  # open to both sides, it never ends
    ):
        functiond("deploy", tmp_path / "index.py", "--name", "one", url=engine.url)
        made = httpx.post(f"{engine.url}/v2/default/fgs/triggers/one", json=body, trust_env=False)
        lines = {told.readline(), told.readline()}

    assert made.status_code == 201, made.text
    assert lines == {b"one\n", b"two\n"}


def test_the_engine_can_be_served_from_python(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(block("python", "trigger=LinesTrigger"))
    [line] = re.findall(r"`(from engine.app.embedded import .*)`", README)
    line = line.replace('"http.port": 8080', f'"http.port": 0, "storage.data_dir": {str(tmp_path / "data")!r}')
    command = [sys.executable, "-c", f"from lines import plugin; {line}"]
    environ = {**CLEAN, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONUNBUFFERED": "1"}

    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as program:
        assert program.stdout is not None
        assert any("serving" in line for line in program.stdout)
        program.terminate()
        program.stdout.read()

    assert program.returncode == 0


def test_the_quick_start_installs_what_the_package_offers() -> None:
    start, tests = (one for one in blocks("sh") if "venv" in one)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert start.endswith("-m engine serve --demo\n")
    assert [set(re.findall(r"\.\[(\w+)\]", tests)) <= set(extras), tests.count("\n"), start.count("\n")] == [True, 1, 1]
