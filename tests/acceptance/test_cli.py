"""Command line: what commands print and return, and engines in real processes with real signals."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from engine.cli.commands import run as run_command
from engine.errors import JournalBroken, MembershipLost, SettingsError
from tests.support.cli import functiond_here
from tests.support.engine_process import CLEAN, ROOT, EngineProcess, engine_process, functiond
from tests.support.gateways import API

OWN_RUNTIME = "Python{}.{}".format(*sys.version_info)
ECHO = "def handler(event, context):\n    print('seen')\n    return {'got': event, 'a': context.getUserData('A')}\n"
FAIL = "def handler(event, context):\n    raise ValueError('no')\n"
SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"
NAP = "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'rested'\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("cli")) as running:
        yield running


def deploy(engine: EngineProcess, folder: Path, name: str, source: str, *options: str) -> Any:
    (folder / f"{name}.py").write_text(source)
    return read(functiond_here("deploy", folder / f"{name}.py", *options, "--json", url=engine.url))


def read(run: subprocess.CompletedProcess[str]) -> Any:
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def config(engine: EngineProcess, name: str) -> Any:
    path = f"{engine.url}/v2/default/fgs/functions/{name}/config"
    return httpx.get(path, trust_env=False, timeout=60).raise_for_status().json()


def send(engine: EngineProcess, path: str, body: Any, kind: str = "application/json") -> None:
    headers = {"Content-Type": kind}
    httpx.post(
        f"{engine.url}/{path}", content=json.dumps(body), headers=headers, trust_env=False, timeout=60
    ).raise_for_status()


def refused(*arguments: str, code: int, url: str = "") -> str:
    """Run a failing command and return its only line on standard error."""
    run = functiond_here(*arguments, url=url) if url else functiond(*arguments)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (code, "", 1), run.stderr
    return run.stderr


def test_a_function_is_deployed_listed_called_and_deleted(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "life", ECHO, "--env", "A=b=c")

    called = functiond("invoke", "life", "--data", '{"k": 1}', "--log", url=engine.url)
    listed = functiond("functions", url=engine.url).stdout
    deleted = functiond("delete", "life", url=engine.url)

    assert json.loads(called.stdout) == {"got": {"k": 1}, "a": "b=c"}
    assert "\nseen\n" in called.stderr
    assert re.search(rf"^life +{OWN_RUNTIME} +life.handler +128 MB +30 s ", listed, re.MULTILINE)
    assert deleted.returncode == 0
    assert "FSS.1051" in refused("invoke", "life", url=engine.url, code=1)


def test_deploy_prints_the_defaults_of_a_new_function(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "fresh.py").write_text(ECHO)
    made = functiond_here("deploy", tmp_path / "fresh.py", url=engine.url).stdout.splitlines()
    settled = functiond_here("deploy", tmp_path / "fresh.py", "--status-log", url=engine.url).stdout.splitlines()

    own = f"  30 s, 128 MB, {OWN_RUNTIME}; "
    assert made[1] == f"{own}no retries and no maximum age, unless the engine has other defaults"
    assert settled[1] == f"{own}1 retry, maximum age 86,400 s"


def test_retry_rules_are_deployed_and_the_decision_is_shown(engine: EngineProcess, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"message_prefix": "no", "max_retries": 0}]')
    first = deploy(engine, tmp_path, "ruled", FAIL, "--retries", "3", "--retry-rules", str(rules))
    second = deploy(engine, tmp_path, "ruled", FAIL, "--max-age", "50")
    sent = functiond_here("invoke", "ruled", "--async", "--wait", "--json", url=engine.url)
    request_id = json.loads(sent.stdout)["request_id"]
    shown = functiond_here("show", request_id, url=engine.url).stdout
    rules.write_text("{}")
    refused = functiond_here("deploy", str(tmp_path / "ruled.py"), "--retry-rules", str(rules), url=engine.url)

    assert first["async_invoke_config"]["retry_rules"] == second["async_invoke_config"]["retry_rules"]
    assert "no retry: none is allowed, rule 1 (message_prefix no)" in shown
    assert (refused.returncode, "must contain a list of rules" in refused.stderr) == (2, True)


def test_an_option_of_deploy_keeps_everything_else(engine: EngineProcess, tmp_path: Path) -> None:
    told = "import os\ndef handler(event, context): return {'key': os.environ.get('KEY')}\n"
    deploy(engine, tmp_path, "whole", told)
    set_by_api = {
        "user_data": '{"A": "1"}',
        "encrypted_user_data": '{"KEY": "secret"}',
        "description": "kept",
        "type": "v1",
        "initializer_timeout": 7,
        "enable_dynamic_memory": True,
        "func_vpc": {"vpc_id": "v"},
        "gpu_memory": 1024,
        "enable_lts_log": False,
        "log_config": {"group_id": "g", "stream_id": "s"},
        "lts_custom_tag": {"a": "b"},
        "functiond": {"weight": 2.0},
        "strategy_config": {"concurrency": 7, "concurrent_num": 1},
    }
    path = f"{engine.url}/v2/default/fgs/functions/whole/config"
    httpx.patch(path, json=set_by_api, trust_env=False, timeout=60).raise_for_status()
    before = config(engine, "whole")

    deploy(engine, tmp_path, "whole", told, "--timeout", "10")
    deploy(engine, tmp_path, "whole", told, "--memory", "256")

    after = config(engine, "whole")
    times = {name: after[name] for name in ("last_modified", "image_name", "cpu")}
    assert before.items() >= set_by_api.items()
    assert after == {**before, "timeout": 10, "memory_size": 256, **times}
    assert json.loads(functiond_here("invoke", "whole", url=engine.url).stdout) == {"key": "secret"}


@pytest.mark.parametrize(
    ("file", "content", "options", "code"),
    [
        ("same.py", FAIL, ("--memory", "256", "--timeout", "1"), "FSS.1008"),
        ("same.zip", "no zip", ("--memory", "256", "--env", "A=1", "--handler", "other.handler"), "FSS.1011"),
    ],
    ids=["a wrong option", "a wrong package"],
)
def test_what_deploy_cannot_do_whole_changes_nothing(
    engine: EngineProcess, tmp_path: Path, file: str, content: str, options: tuple[str, ...], code: str
) -> None:
    deploy(engine, tmp_path, "same", ECHO)
    before = config(engine, "same")
    (tmp_path / file).write_text(content)

    assert code in refused("deploy", str(tmp_path / file), *options, url=engine.url, code=1)
    after = config(engine, "same")
    assert after == {**before, **{name: after[name] for name in ("last_modified", "image_name")}}


def test_a_function_whose_settings_are_refused_is_told(engine: EngineProcess, tmp_path: Path) -> None:
    shown = deploy(engine, tmp_path, "known", ECHO, "--name", "tools:known")

    said = refused(
        "deploy", str(tmp_path / "known.py"), "--name", "tools:known", "--retries", "9", url=engine.url, code=1
    )

    assert shown["func_urn"].split(":")[5:7] == ["tools", "known"]
    assert "tools:known is updated, but not its asynchronous settings: FSS.0400 max_async_retry_attempts is 9" in said


def test_an_event_is_left_and_its_result_waited_for(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "later", ECHO)

    run = functiond_here("invoke", "later", "-", "--async", "--wait", url=engine.url, stdin='{"from": "stdin"}')

    assert json.loads(run.stdout)["got"] == {"from": "stdin"}
    assert re.fullmatch(r"[0-9a-f-]{36}\n", run.stderr)


def test_waiting_may_have_a_bound(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "bound", SLOW)

    run = functiond_here("invoke", "bound", "--async", "--wait", "--timeout", "0.1", url=engine.url)

    assert (run.returncode, run.stdout) == (1, "")
    assert "after 0.1 s; the invocation continues" in run.stderr
    assert functiond_here("cancel", run.stderr.split()[0], url=engine.url).returncode == 0


def test_waiting_without_a_bound_asks_again_until_it_ends(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(engine, tmp_path, "patient", NAP)
    monkeypatch.setattr("engine.cli.invoke.LONGEST_WAIT", 0.05)  # a twentieth of the run's duration

    code = run_command(["invoke", "patient", "--async", "--wait", "--url", engine.url])

    assert (code, capsys.readouterr().out) == (0, "rested\n")


def test_the_same_idempotency_key_is_the_same_invocation(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "once", ECHO)
    options = ("--async", "--idempotency-key", "k", "--ordering-key", "o", "--priority", "9", "--delay", "600")

    first, second = (functiond_here("invoke", "once", *options, url=engine.url).stdout.strip() for _ in range(2))
    shown = read(functiond_here("show", first, "--json", url=engine.url))

    assert first == second
    assert (shown["status"], shown["priority"]) == ("WAIT", 9)
    assert (shown["ordering_key"], shown["held"]) == ("o", False)


def test_a_failure_is_shown_and_gives_exit_code_1(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "fails", FAIL, "--retries", "0")

    called = functiond_here("invoke", "fails", url=engine.url)
    left = functiond_here("invoke", "fails", "--async", "--wait", "--json", url=engine.url)
    listed = read(functiond_here("invocations", "fails", "--status", "fail", "--json", url=engine.url))

    assert (called.returncode, json.loads(called.stdout)["errorMessage"]) == (1, "no")
    assert (left.returncode, json.loads(left.stdout)["status"]) == (1, "FAIL")
    assert [(invocation["status"], invocation["error_code"]) for invocation in listed] == [("FAIL", 4002)]


def test_an_invocation_is_found_and_cancelled_by_its_id(engine: EngineProcess, tmp_path: Path) -> None:
    deploy(engine, tmp_path, "slow", SLOW)
    request_id = functiond_here("invoke", "slow", "--async", url=engine.url).stdout.strip()

    cancelled = functiond_here("cancel", request_id, url=engine.url)
    shown = functiond_here("show", request_id, "--function", "slow", url=engine.url).stdout
    listed = functiond_here("invocations", url=engine.url).stdout

    assert cancelled.returncode == 0, cancelled.stderr
    assert f"{request_id} FAIL\n" in shown
    assert "4208" in shown
    assert re.search(rf"^{request_id} +slow +FAIL ", listed, re.MULTILINE)


def test_triggers_are_listed_with_what_their_sources_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with engine_process(tmp_path, environ={"FUNCTIOND_PLUGINS__APIG__PORT": str(port)}) as engine:
            for name in ("one", "other"):
                deploy(engine, tmp_path, name, ECHO)
            for name, kind, data in (("one", "EVENTGRID", {"channel_id": "c"}), ("other", "APIG", API)):
                send(engine, f"v2/default/fgs/triggers/{name}", {"trigger_type_code": kind, "event_data": data})
            event = {"id": "1", "source": "s", "specversion": "1.0", "type": "t"}
            send(engine, "triggers/eventgrid/c", event, "application/cloudevents+json")

            listed = functiond_here("triggers", url=engine.url).stdout.splitlines()
            [trigger] = read(functiond_here("triggers", "one", "--json", url=engine.url))
            unknown = refused("triggers", "none", url=engine.url, code=1)

    assert [line.split()[1:6] for line in listed[1:]] == [
        ["EVENTGRID", "one", "running", "1", "0"],
        ["APIG", "other", "failing", "0", "0"],
    ]
    assert f"cannot listen on 127.0.0.1:{port}" in listed[2]
    assert (trigger["trigger_type_code"], trigger["source"]["accepted"]) == ("EVENTGRID", 1)
    assert "FSS.1051" in unknown


def test_invocations_of_versions_are_found_as_well(engine: EngineProcess, tmp_path: Path) -> None:
    version = f"{deploy(engine, tmp_path, 'versioned', ECHO)['func_urn'].removesuffix(':latest')}:v1"
    send(engine, "v2/default/fgs/functions/versioned/versions", {"version": "v1"})
    request_id = functiond_here("invoke", version, "--async", url=engine.url).stdout.strip()

    listed = read(functiond_here("invocations", "--limit", "500", "--json", url=engine.url))
    shown = read(functiond_here("show", request_id, "--json", url=engine.url))

    assert request_id in {invocation["request_id"] for invocation in listed}
    assert shown["function_urn"] == version


def test_an_unknown_id_is_told(engine: EngineProcess) -> None:
    said = refused("show", "a b", url=engine.url, code=1)
    assert "no invocation a b: the id is wrong, its function was deleted, or it ended longer ago than" in said


@pytest.mark.parametrize("option", [("--delay", "-1"), ("--delay", "604801"), ("--priority", "10")])
def test_a_number_outside_its_limits_is_refused_by_the_name_of_its_option(option: tuple[str, str]) -> None:
    run = functiond_here("invoke", "f", "--async", *option, url="http://127.0.0.1:9")

    assert run.returncode == 2
    assert re.search(rf'Invalid value ".*" for {option[0]}. Must be ', run.stderr)


def test_a_reader_that_goes_away_is_no_error(engine: EngineProcess) -> None:
    line = f"{sys.executable} -m engine settings | head -1"

    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=CLEAN, cwd=ROOT, check=True)

    assert (run.stdout.startswith("SETTING "), run.stderr) == (True, "")


@contextmanager
def said_by_engine(folder: Path, *options: str, **environ: str) -> Iterator[IO[str]]:
    """Return the standard output of an engine that is stopped by Ctrl-C; assert a clean exit."""
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--data-dir", str(folder / "data"), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=CLEAN | environ, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_the_lines_of_the_demo_work_as_they_are_printed(tmp_path: Path) -> None:
    with said_by_engine(tmp_path, "--demo") as said:
        words = list(takewhile(lambda line: "Ctrl-C" not in line, said))
        lines = [line.strip() for line in words if line.startswith("  ")]
        ran = [subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT) for line in lines]

    assert [run.returncode for run in ran] == [0, 0, 0], [run.stderr for run in ran]
    assert json.loads(ran[0].stdout)["request_id"] in ran[1].stdout
    assert json.loads(ran[2].stdout) == {"hello": "you"}


def test_an_engine_without_functions_says_how_to_deploy(tmp_path: Path) -> None:
    with said_by_engine(tmp_path) as said:
        words = [said.readline() for _ in range(4)]

    assert "functiond serves http://127.0.0.1:" in words[0]
    assert words[1].startswith("Open the console at http://127.0.0.1:")
    assert words[1].endswith("/console/\n")
    assert " deploy FOLDER --handler index.handler --url http://127.0.0.1:" in words[3]


def test_settings_come_from_the_file_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "functiond.toml").write_text("[http]\nregion = 'mars-1'\n")

    with engine_process(tmp_path, environ={"FUNCTIOND_CONFIG": str(tmp_path / "functiond.toml")}) as engine:
        shown = deploy(engine, tmp_path, "far", ECHO)

    assert shown["func_urn"].startswith("urn:fss:mars-1:")


def test_json_logs_are_all_that_is_on_standard_error(tmp_path: Path) -> None:
    with engine_process(tmp_path, "--log-format", "json") as engine:
        engine.process.terminate()
        said = engine.said.read()

    assert said == ""
    assert {json.loads(line)["event"] for line in engine.log} >= {"serving", "stopping", "stopped"}


def test_a_data_directory_in_use_is_told_with_its_owner(tmp_path: Path) -> None:
    with engine_process(tmp_path) as engine:
        said = refused("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), code=2)

    assert f"process {engine.process.pid}" in said


def test_a_port_in_use_is_told(engine: EngineProcess, tmp_path: Path) -> None:
    port = engine.url.rpartition(":")[2]
    run = functiond("serve", "--port", port, "--data-dir", tmp_path / "data", "--log-level", "error")

    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert f"cannot listen on 127.0.0.1:{port}" in run.stderr
    assert run.stderr.endswith("; choose another --port\n")


def test_settings_that_are_wrong_are_told_as_json_to_who_wants_json() -> None:
    said = refused("serve", "--host", "0.0.0.0", "--log-format", "json", code=2)

    assert "set auth.file" in json.loads(said)["event"]


def test_a_plugin_that_is_not_there_is_told(tmp_path: Path) -> None:
    said = refused("serve", "--plugin", "no.such", "--port", "0", "--data-dir", str(tmp_path / "d"), code=2)

    assert "plugin module no.such cannot be imported" in said


@pytest.mark.parametrize("fatal", [JournalBroken("fsync failed"), MembershipLost()])
def test_a_fatal_error_asks_for_a_new_start_whatever_else_went_wrong(
    fatal: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.cli.serve import _explain

    errors = BaseExceptionGroup("", [SettingsError("x"), BaseExceptionGroup("", [fatal])])

    assert _explain(errors, "") == 3
    assert capsys.readouterr().err.startswith(f"functiond: {fatal} (start the engine again")


def test_an_error_of_ours_is_not_explained_away() -> None:
    from engine.cli.serve import _explain

    with pytest.raises(ExceptionGroup):
        _explain(ExceptionGroup("", [ValueError("a bug")]), "")
