"""Documentation as programs: the commands, requests, functions and plugins of its pages are run.

The blocks of a page are run together. Blocks whose first line names a file are written to it; then all ``sh`` blocks
are run by one shell, against an engine with the function ``hello``. Blocks marked ``console`` are not run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.deploy.client import Client
from tests.support.distributions import add_installed
from tests.support.documents import DOCS, PAGES, README, block, blocks, packages, page_id, section
from tests.support.engine_process import CLEAN, ROOT, EngineProcess, engine_process, functiond
from tests.support.ports import free_port
from tests.support.programs import program

DEFAULT_URL, GATEWAY_URL = "http://127.0.0.1:8080", "http://127.0.0.1:8090"
TRIGGERS = "/v2/default/fgs/triggers"
LANGUAGES = DOCS / "go-and-java.md"  #: has a test of its own, since few machines have both
SHELL_PAGES = [
    page for page in PAGES if page != LANGUAGES and [part for part in blocks(page, "sh") if "-m venv" not in part.text]
]
#: Stops at the first failing command. Rejected requests count as failures.
PRELUDE = 'set -euo pipefail\ncurl() { command curl -sS --fail-with-body "$@" && echo; }\n'


class Demo:
    """An engine with the function ``hello``, and a folder with the programs that pages call."""

    def __init__(self, engine: EngineProcess, gateway: str, programs: Path) -> None:
        self.url, self.gateway = engine.url, gateway
        self.index = programs  #: packages, in place of one that needs a network
        path = f"{ROOT}:{ROOT / 'engine' / 'client'}"
        self._environ = {**CLEAN, "FUNCTIOND_URL": engine.url, "PYTHONPATH": path}
        self._environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        self._environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(programs), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self._environ |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(programs), "XDG_CACHE_HOME": str(programs / "cache")}
        self._environ |= {"GOCACHE": str(Path.home() / ".cache" / "go-build")}  # it compiles its library for a minute

    def run(self, script: str, folder: Path) -> str:
        """Return the output of a script whose commands all succeed."""
        script = script.replace(DEFAULT_URL, self.url).replace(GATEWAY_URL, self.gateway)
        command = ["bash", "-c", PRELUDE + script]
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=self._environ, timeout=120)
        assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
        return run.stdout

    def create_trigger(self, kind: str, event_data: object) -> httpx.Response:
        body = {"trigger_type_code": kind, "event_data": event_data}
        return httpx.post(f"{self.url}{TRIGGERS}/hello", json=body, trust_env=False)

    def clean_up(self) -> None:
        """Delete the triggers of ``hello``, and all other functions, whose names other pages may use."""
        fgs = f"{self.url}/v2/default/fgs"
        for function in httpx.get(f"{fgs}/functions?maxitems=400", trust_env=False).json()["functions"]:
            if function["func_name"] != "hello":
                urn = function["func_urn"].removesuffix(":latest")
                httpx.delete(f"{fgs}/functions/{urn}", trust_env=False).raise_for_status()
        for trigger in httpx.get(f"{self.url}{TRIGGERS}", trust_env=False).json()["triggers"]:
            path = f"{trigger['func_urn']}/{trigger['trigger_type_code']}/{trigger['trigger_id']}"
            httpx.delete(f"{self.url}{TRIGGERS}/{path}", trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    programs = tmp_path_factory.mktemp("programs")
    for name, options in (("functiond", "-P -m engine"), ("pip", "-P -m pip"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        (programs / name).chmod(0o755)
    port = free_port()
    environ = {"FUNCTIOND_PLUGINS__APIG__PORT": str(port)}
    with engine_process(tmp_path_factory.mktemp("readme"), "--demo", environ=environ) as engine:
        assert any("Ctrl-C" in line for line in engine.said)  # the demo function exists by then
        yield Demo(engine, f"http://127.0.0.1:{port}", programs)


#: Function at the end of a chain, and a line that it writes, by the page whose program starts the chain.
CHAINS = {
    "fan-out-and-join.md": ("bind", "album holiday beach.jpg boat.jpg harbour.jpg"),
    "from-celery.md": ("load", "van 4 takes parcel 17 parcel 19"),
    "from-huey.md": ("send", "sending Hello Eve"),
}


def _marks(page: Path) -> list[pytest.MarkDecorator]:
    return [] if page == README else [pytest.mark.long]


@pytest.mark.parametrize("page", [pytest.param(page, marks=_marks(page), id=page_id(page)) for page in SHELL_PAGES])
def test_the_commands_of_a_page_succeed(page: Path, demo: Demo, tmp_path: Path) -> None:
    if blocks(page, "js"):
        program("node")
    for part in blocks(page, "python", "js", "toml"):
        if part.file:
            (tmp_path / part.file).parent.mkdir(exist_ok=True)
            (tmp_path / part.file).write_text(part.text)
    add_installed(demo.index, *packages(page))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()  # PATH has the programs already
    script = "".join(part.text for part in blocks(page, "sh") if "-m venv" not in part.text)
    try:
        said = demo.run(script.replace("mkdir render", "mkdir -p render"), tmp_path)
        if chain := CHAINS.get(page.name):
            demo.run(f"until functiond logs {chain[0]} | grep -qF '{chain[1]}'; do sleep 0.1; done", tmp_path)
    finally:
        demo.clean_up()

    if page == README:
        assert said.count("HTTP/1.1 202 ") == 1
        assert "created TIMER trigger of hello, active" in said
        assert "request_id" in said
        assert '{"hello":"you"}' in said.replace(" ", "")
        assert "<strong>Hello</strong>" in said
    if page.name == "trigger-apig.md":
        assert "HTTP/1.1 202 " in said
    if page.name == "functions.md":
        assert said.count('"hello"') >= 2


@pytest.mark.long
@pytest.mark.parametrize(("language", "compiler"), [("go", "go"), ("java", "javac")])
def test_the_program_in_another_language_is_built_deployed_and_called(
    language: str, compiler: str, demo: Demo, tmp_path: Path
) -> None:
    program(compiler)
    for part in blocks(LANGUAGES, language):
        (tmp_path / part.file).parent.mkdir(exist_ok=True)
        (tmp_path / part.file).write_text(part.text)
    name = f"greet-{language}"
    try:
        said = demo.run("".join(part.text for part in blocks(LANGUAGES, "sh") if name in part.text), tmp_path)
        shown = httpx.get(f"{demo.url}/v2/default/fgs/functions/{name}/config", trust_env=False).json()
        demo.run(f"until functiond logs {name} | grep -q 'you, attempt 1'; do sleep 0.1; done", tmp_path)
    finally:
        demo.clean_up()

    assert "\nhello you\n" in said
    assert "HTTP/1.1 202 " in said
    assert "mail, attempt 1" in said
    assert (shown["runtime"], shown["handler"], shown["strategy_config"]["concurrency"]) == ("http", "bootstrap", 2)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
def test_programs_are_complete(page: Path) -> None:
    for part in blocks(page, "python"):
        compile(part.text, page.name, "exec")
        assert part.file or "huaweicloudsdk" in part.text or "Engine(plugins" in part.text, "no test runs this"


def test_mypy_finds_the_mistakes_of_the_page_about_typing_and_no_others(tmp_path: Path) -> None:
    parts = blocks(DOCS / "typing.md", "python")
    for part in parts:
        (tmp_path / part.file).write_text(part.text)
    files = [str(tmp_path / part.file) for part in parts]
    environ = {**os.environ, "MYPYPATH": str(tmp_path)}

    run = subprocess.run([sys.executable, "-m", "mypy", *files], capture_output=True, text=True, cwd=ROOT, env=environ)

    lines = {(part.file, n): line for part in parts for n, line in enumerate(part.text.splitlines(), 1)}
    found = {(name, int(n)) for name, n in re.findall(r"([\w.]+):(\d+): error", run.stdout)}
    assert found == {place for place, line in lines.items() if "  # error: " in line}, run.stdout + run.stderr
    assert len(found) > 5


def test_each_kind_of_trigger_is_created_from_its_row(demo: Demo) -> None:
    table = section(DOCS / "triggers.md", "Kinds")
    rows = re.findall(r"^\| (\[?[A-Z]{3}.*?) \|.*\| `(\{.*\})` \|$", table, re.MULTILINE)
    kinds = [(kind, event_data) for cell, event_data in rows for kind in re.findall(r"\b[A-Z]{3,}\b", cell)]
    offered = httpx.get(f"{demo.url}/v2/default/fgs/triggertypes", trust_env=False)
    refused = []
    for kind, event_data in kinds:
        created = demo.create_trigger(kind, json.loads(event_data))
        if created.status_code != 201:
            refused.append((kind, created.text))
        demo.clean_up()

    assert refused == []
    assert {kind for kind, _ in kinds} | {"APIG", "DEDICATEDGATEWAY", "APIC"} == set(offered.json())


def test_the_api_of_the_gateway_page_is_created(demo: Demo) -> None:
    body = json.loads(block(DOCS / "trigger-apig.md", "json", "APIG"))
    created = demo.create_trigger(body["trigger_type_code"], body["event_data"])
    demo.clean_up()

    assert created.status_code == 201, created.text


@pytest.mark.parametrize(
    ("page", "expected"), [(README, r"[0-9a-f-]{36}\n"), (DOCS / "compatibility.md", r"\[.*'hello'.*\]\n")], ids=str
)
def test_the_sdk_programs_work(page: Path, expected: str, demo: Demo, tmp_path: Path) -> None:
    program = block(page, "python", "huaweicloudsdk").replace(DEFAULT_URL, demo.url)

    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**CLEAN, "HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert re.fullmatch(expected, run.stdout)


PLUGINS = DOCS / "plugins.md"


def test_the_destination_receives_outcomes(tmp_path: Path) -> None:
    (tmp_path / "appender.py").write_text(block(PLUGINS, "python", "destination=FileDestination"))
    (tmp_path / "index.py").write_text("def handler(event, context):\n    return 1\n")
    os.mkfifo(tmp_path / "outcomes")  # reading from it blocks until the delivery
    config = json.loads(block(PLUGINS, "json", "FILE").replace("/var/tmp/outcomes", str(tmp_path / "outcomes")))

    with engine_process(tmp_path, "--plugin", "appender", cwd=tmp_path) as engine:
        functiond("deploy", tmp_path / "index.py", "--name", "one", url=engine.url)
        Client(engine.url, "default", "").put("/one/async-invoke-config", config)
        functiond("invoke", "one", "--async", url=engine.url)
        outcome = json.loads((tmp_path / "outcomes").read_text())

    assert outcome["response_payload"] == "1"


def test_the_trigger_calls_a_function_with_each_line(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(block(PLUGINS, "python", "trigger=LinesTrigger"))
    (tmp_path / "text").write_text("one\ntwo\n")
    os.mkfifo(tmp_path / "received")
    write = f"open({str(tmp_path / 'received')!r}, 'w').write(event['line'] + '\\n')"
    (tmp_path / "index.py").write_text(f"def handler(event, context):\n    {write}\n")
    body = {"trigger_type_code": "LINES", "event_data": {"path": str(tmp_path / "text")}}

    with (
        engine_process(tmp_path, "--plugin", "lines", cwd=tmp_path) as engine,
        (tmp_path / "received").open("r+b", buffering=0) as received,  # open for writing, too: no end of file
    ):
        functiond("deploy", tmp_path / "index.py", "--name", "one", url=engine.url)
        created = httpx.post(f"{engine.url}{TRIGGERS}/one", json=body, trust_env=False)
        lines = {received.readline(), received.readline()}

    assert created.status_code == 201, created.text
    assert lines == {b"one\n", b"two\n"}


def test_the_trigger_calls_a_function_with_each_text_that_its_port_receives(tmp_path: Path) -> None:
    (tmp_path / "inbox.py").write_text(block(PLUGINS, "python", "trigger=InboxTrigger"))
    (tmp_path / "index.py").write_text("def handler(event, context):\n    return 1\n")
    port = free_port()
    body = {"trigger_type_code": "INBOX", "event_data": {"port": port}}

    with engine_process(tmp_path, "--plugin", "inbox", cwd=tmp_path) as engine:
        functiond("deploy", tmp_path / "index.py", "--name", "one", url=engine.url)
        created = httpx.post(f"{engine.url}{TRIGGERS}/one", json=body, trust_env=False)
        # The source starts soon after the trigger is created.
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            replies = [client.post(f"http://127.0.0.1:{port}", content=text) for text in ("one", "x" * 65_537)]

    assert created.status_code == 201, created.text
    assert [reply.status_code for reply in replies] == [202, 413]
    assert [list(reply.json()) for reply in replies] == [["request_id"], ["problem"]]


def test_the_engine_can_be_served_from_python(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(block(PLUGINS, "python", "trigger=LinesTrigger"))
    program = block(PLUGINS, "python", "Engine(plugins")
    settings = f'"http.port": 0, "storage.data_dir": {str(tmp_path / "data")!r}'
    command = [sys.executable, "-c", program.replace('"http.port": 8080', settings)]
    environ = {**CLEAN, "PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT}/engine/client", "PYTHONUNBUFFERED": "1"}

    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as process:
        assert process.stdout is not None
        assert any("serving" in line for line in process.stdout)
        process.terminate()
        process.stdout.read()

    assert process.returncode == 0
