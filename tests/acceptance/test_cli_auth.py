"""Command line with an engine that requires credentials."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.acceptance.test_cli import said_by_engine
from tests.support.cli import functiond_here
from tests.support.credentials import credentials_file, key, token
from tests.support.engine_process import CLEAN, ROOT, EngineProcess, engine_process

pytestmark = pytest.mark.long

SECRET, SECURITY = "the-secret-of-a-key", "security-token-of-temp"
TABLES = (
    key("AK1", SECRET, "p1"),
    key("TEMP", SECRET, "p1", token=SECURITY),
    key("INVOKER", SECRET, "p1", role="invoke"),
    key("READER", SECRET, "p1", role="read"),
    token("token-of-a-reader", "p1", role="read"),
)
KEY = {"FUNCTIOND_PROJECT": "p1", "FUNCTIOND_ACCESS_KEY": "AK1", "FUNCTIOND_SECRET_KEY": SECRET}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("cli_auth")
    with engine_process(folder, environ=credentials_file(folder, *TABLES)) as running:
        (folder / "hello.py").write_text("def handler(event, context):\n    return event\n")
        done = functiond_here("deploy", folder / "hello.py", url=running.url, environ=KEY)
        assert done.returncode == 0, done.stderr
        yield running


def test_with_a_key_every_command_is_served(engine: EngineProcess) -> None:
    called = functiond_here("invoke", "hello", "--data", '{"é": "a  b"}', url=engine.url, environ=KEY)
    left = functiond_here("invoke", "hello", "--async", "--idempotency-key", "k", url=engine.url, environ=KEY)
    listed = functiond_here("invocations", "hello", "--limit", "5", "--json", url=engine.url, environ=KEY)

    assert json.loads(called.stdout) == {"é": "a  b"}
    assert left.stdout.strip() in listed.stdout


def test_services_and_manifests_take_the_key(engine: EngineProcess, tmp_path: Path) -> None:
    reader = KEY | {"FUNCTIOND_ACCESS_KEY": "READER"}
    exported = tmp_path / "exported.toml"
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("topic", "create", "orders"),
        ("topic", "publish", "orders", "a  b", "--subject", "é"),
        ("stream", "create", "clicks"),
        ("stream", "update", "clicks", "--hours", "48"),
        ("stream", "create", "shop/web"),
        ("export", exported),
        ("apply", exported, "--plan", "--prune"),
    )
    runs = [functiond_here(*command, url=engine.url, environ=KEY) for command in commands]
    listed = functiond_here("topic", "list", url=engine.url, environ=reader)
    refused = functiond_here("export", url=engine.url, environ=reader)

    assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * len(runs)
    assert runs[-1].stdout == "Nothing to change.\n"
    assert "urn:smn:local-1:p1:orders" in listed.stdout
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "to a key with that role" in refused.stderr


def test_the_key_can_be_given_as_options(engine: EngineProcess) -> None:
    temporary = ("--access-key", "TEMP", "--secret-key", SECRET, "--security-token", SECURITY)

    done = functiond_here("functions", "--project", "p1", *temporary, url=engine.url)

    assert (done.returncode, "hello" in done.stdout) == (0, True), done.stderr


def test_a_token_is_sent_if_there_is_no_key(engine: EngineProcess) -> None:
    environ = {"FUNCTIOND_TOKEN": "token-of-a-reader", "FUNCTIOND_PROJECT": "p1"}

    assert "hello" in functiond_here("functions", url=engine.url, environ=environ).stdout
    assert "the role read may not" in functiond_here("invoke", "hello", url=engine.url, environ=environ).stderr
    assert "hello" in functiond_here("functions", url=engine.url, environ={"FUNCTIOND_TOKEN": "wrong", **KEY}).stdout


def test_a_command_beyond_the_role_says_which_role_it_needs(engine: EngineProcess) -> None:
    invoker, reader = KEY | {"FUNCTIOND_ACCESS_KEY": "INVOKER"}, KEY | {"FUNCTIOND_ACCESS_KEY": "READER"}
    invoked = functiond_here(
        "invoke", "hello", "--async", "--wait", "--json", "--data", '{"a": 1}', url=engine.url, environ=invoker
    )
    request_id = json.loads(invoked.stdout)["request_id"]
    shown = functiond_here("show", request_id, "--function", "hello", url=engine.url, environ=reader)
    listed = functiond_here("functions", url=engine.url, environ=invoker)
    called = functiond_here("invoke", "hello", "--data", "{}", url=engine.url, environ=reader)

    assert json.loads(invoked.stdout)["result"] == {"a": 1}
    assert "payload" not in json.loads(invoked.stdout)
    assert "result    (not shown to the role of these credentials)" in shown.stdout
    assert (listed.returncode, called.returncode) == (1, 1)
    assert listed.stderr.startswith("functiond: FSS.0403 the role invoke may not use ListFunctions; ")
    assert "credentials with the role read or admin may: set FUNCTIOND_ACCESS_KEY" in listed.stderr
    assert "the role read may not use InvokeFunction" in called.stderr


@pytest.mark.parametrize(
    ("changed", "said", "code"),
    [
        ({"FUNCTIOND_SECRET_KEY": "not-the-secret-of-it"}, "FSS.0401 the signature does not match", 1),
        ({"FUNCTIOND_ACCESS_KEY": "AK2"}, "FSS.0401 the access key is not one of this engine's", 1),
        ({"FUNCTIOND_PROJECT": "p2"}, "FSS.0403 these credentials are for project p1 only", 1),
        ({"FUNCTIOND_ACCESS_KEY": "", "FUNCTIOND_SECRET_KEY": ""}, "FSS.0401 credentials are needed", 1),
        ({"FUNCTIOND_SECRET_KEY": ""}, "--access-key and --secret-key must be given together", 2),
    ],
)
def test_a_refusal_is_one_line_without_the_secret(
    engine: EngineProcess, changed: dict[str, str], said: str, code: int
) -> None:
    done = functiond_here("functions", url=engine.url, environ=KEY | changed)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr
    assert SECRET not in done.stderr


def test_the_help_shows_no_secret() -> None:
    done = functiond_here("functions", "--help", environ=KEY)

    assert "--secret-key" in done.stdout
    assert SECRET not in done.stdout


def test_the_lines_of_the_demo_work_once_the_key_is_set(tmp_path: Path) -> None:
    with said_by_engine(tmp_path, "--demo", **credentials_file(tmp_path, *TABLES)) as said:
        words = list(takewhile(lambda line: "Ctrl-C" not in line, said))
        lines = [line.strip() for line in words if line.startswith("  ")]
        keyed = {**CLEAN, **KEY, "PATH": os.environ["PATH"]}
        ran = [subprocess.run(["bash", "-c", line], capture_output=True, cwd=ROOT, env=keyed) for line in lines]

    assert [run.returncode for run in ran] == [0, 0], [run.stderr for run in ran]
    assert json.loads(ran[1].stdout) == {"hello": "you"}
    assert SECRET not in "".join(words)
