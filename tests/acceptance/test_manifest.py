"""Manifests: apply, plan, prune and export, with an engine in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.support.cli import Cli, functiond_into_a_file
from tests.support.distributions import add_wheel
from tests.support.engine_process import CLEAN, PROGRAM, ROOT, EngineProcess, engine_process

pytestmark = pytest.mark.long

SECRET = "0123456789abcdef-secret"
CODE = "def handler(event, context):\n    return [event, context.getUserData('A'), context.getUserData('TOKEN')]\n"
WHOLE = """
[functions.resize]
code = "resize"
timeout = 60
description = "first"
strategy_config = { concurrent_num = 2 }
environment = { A = "x$${y}", TOKEN = "${TOKEN}", API_KEY = "${TOKEN}", DATABASE_URL = "${URL}" }
encrypted_environment = { KEY = "${TOKEN}" }

[functions.resize.async_invoke_config]
max_async_retry_attempts = 2
retry_rules = [{ error_type = "ValueError", max_retries = 0 }]

[functions.resize.async_invoke_config.destination_config]
on_success = { destination = "FunctionGraph", param = { func_urn = "report" } }
on_failure = { destination = "SMN", param = { topic_urn = "alarms" } }

[functions.resize.controls]
rate = 5
burst = 10

[[functions.resize.triggers]]
trigger_type_code = "TIMER"
event_data = { name = "nightly", schedule_type = "Cron", schedule = "0 30 6 * * MON" }

[[functions.resize.triggers]]
trigger_type_code = "SMN"
event_data = { topic_urn = "alarms" }

[[functions.resize.triggers]]
trigger_type_code = "LTS"
trigger_status = "DISABLED"
event_data = { log_group_id = "shop", log_topic_id = "orders" }

[[functions.resize.triggers]]
trigger_type_code = "WEBHOOK"
event_data = { name = "hook", secret = "${TOKEN}" }

[[functions.resize.triggers]]
trigger_type_code = "DIS"
event_data = { stream_name = "clicks", sharditerator_type = "LATEST", is_serial = true }

[functions.report]
code = "report.py"

[functions.report.versions.v1]
description = "served"

[functions.report.aliases.live]
version = "v1"

[[functions.report.triggers]]
trigger_type_code = "TIMER"
qualifier = "!live"
event_data = { name = "hourly", schedule_type = "Rate", schedule = "1h" }

[topics.alarms]
display_name = "Alarms"

[streams.clicks]
partition_count = 2

[log_groups.shop]
ttl_in_days = 7

[log_groups.shop.streams.orders]
ttl_in_days = 3
"""
CHANGES = 16
SECRET_URL = "https://user:password@example.com/hook"
#: Fields and kinds of triggers that WHOLE lacks.
FIELDS = """
[functions."tools:resize"]
code = "resize"
description = 'a "quoted" [text]'
initializer_handler = "index.handler"
initializer_timeout = 9
pre_stop_handler = "index.handler"
pre_stop_timeout = 8
enable_dynamic_memory = true
func_vpc = { vpc_id = "v", subnet_id = "s" }
gpu_memory = 1024
enable_lts_log = false
log_config = { group_id = "g", stream_id = "s" }
lts_custom_tag = { a = "b" }
functiond = { app = "shop", weight = 2.0 }
strategy_config = { concurrency = 7, concurrent_num = 1 }
network_controller = { disable_public_network = true }
domain_names = "[]"
app_xrole = "x"
ephemeral_storage = 512
[[functions."tools:resize".mount_config.func_mounts]]
mount_type = "sfs"
mount_resource = "r"
mount_share_path = "/x"
local_mount_path = "/y"
[functions."tools:resize".async_invoke_config]
destination_config = { on_failure = { destination = "WEBHOOK", param = { url = "${URL}" } } }
enable_async_status_log = true
[functions."tools:resize".controls]
paused = true
pause_reason = "later"
[[functions."tools:resize".triggers]]
trigger_type_code = "EVENTGRID"
event_data = { channel_id = "c", key_encode = true }
[[functions."tools:resize".triggers]]
trigger_type_code = "APIG"
[functions."tools:resize".triggers.event_data]
name = "orders"
type = 1
path = "/orders"
protocol = "HTTP"
req_method = "GET"
group_id = "g"
match_mode = "NORMAL"
env_name = "RELEASE"
env_id = "R"
auth = "NONE"
func_info = { timeout = 100 }

[[functions."tools:resize".triggers]]
trigger_type_code = "OBS"
event_data = { bucket = "in", events = ["ObjectCreated"], prefix = "a/" }
[[functions."tools:resize".triggers]]
trigger_type_code = "KAFKA"
event_data = { instance_id = "m", topic_ids = ["a", "b"], batch_size = 5, kafka_user = "u", kafka_password="${TOKEN}" }
[[functions."tools:resize".triggers]]
trigger_type_code = "KAFKA"
event_data = { instance_id = "m", topic_ids = ["c"], batch_size = 5, kafka_user = "u", kafka_password = "${TOKEN}" }

[[functions."tools:resize".triggers]]
trigger_type_code = "CTS"
event_data = { name = "changes", operations = ["FunctionGraph:function:*"] }
[[functions."tools:resize".triggers]]
trigger_type_code = "RABBITMQ"
event_data = { instance_id = "m", exchange_name = "e", access_password = "${TOKEN}", batch_size = 5 }
[[functions."tools:resize".triggers]]
trigger_type_code = "DDS"
event_data = { instance_id = "m", db_name = "d", collection_name = "c", db_password = "${TOKEN}", batch_size = 5 }
[[functions."tools:resize".triggers]]
trigger_type_code = "DMS"
event_data = { queue_id = "m", consumer_group_id = "d" }
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("manifest")) as running:
        yield running


@pytest.fixture
def cli(
    engine: EngineProcess,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Cli:
    """Command line in a folder with code, for a project of the test's own."""
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("URL", SECRET_URL)
    monkeypatch.chdir(tmp_path)
    Path("resize").mkdir()
    Path("resize", "index.py").write_text(CODE)
    Path("report.py").write_text(CODE)
    return Cli(engine.url, capsys, f"p{abs(hash(request.node.name))}")


def manifest(text: str) -> Path:
    file = Path("functiond.toml")
    file.write_text(text)
    return file


def test_a_manifest_is_applied_once_and_then_changes_nothing(cli: Cli) -> None:
    manifest(WHOLE)
    planned = cli.run("apply", "--plan")
    applied = cli("apply")
    before = cli.json("functions"), cli.json("triggers")
    again = cli.run("apply", "--plan")
    second = cli("apply")

    assert planned[0] == 4
    assert planned[1].splitlines()[-1] == f"{CHANGES - 1} to create, 1 to update, 0 to delete."
    assert applied.count("done ") == CHANGES
    assert SECRET not in planned[1] + applied
    assert again[:2] == (0, "Nothing to change.\n")
    assert second == "Nothing to change.\n"
    assert (cli.json("functions"), cli.json("triggers")) == before
    assert json.loads(cli("invoke", "resize")) == [{}, "x${y}", SECRET]
    assert {trigger["trigger_type_code"]: trigger["trigger_status"] for trigger in before[1]} == {
        **dict.fromkeys(("TIMER", "SMN", "WEBHOOK", "DIS"), "ACTIVE"),
        "LTS": "DISABLED",
    }


def test_a_crontab_in_a_manifest_becomes_a_cron_expression_and_five_fields_are_explained(cli: Cli) -> None:
    timer = """[[functions.report.triggers]]\ntrigger_type_code = "TIMER"\nevent_data = { name = "n", %s }\n"""
    head = '[functions.report]\ncode = "report.py"\nhandler = "report.handler"\n'
    manifest(head + timer % 'crontab = "*/10 * * * *"')
    applied = cli("apply")
    again = cli("apply")
    manifest(head + timer % 'schedule_type = "Cron", schedule = "*/10 * * * *"')
    _, changed, warning = cli.run("apply")
    manifest(head + timer % 'crontab = "*/10"')

    assert re.search(r"done create trigger TIMER n of report\n  due .*:00, .*:00, .*:00 \(UTC\)\n", applied)
    assert again == "Nothing to change.\n"
    assert '~ schedule = "*/10 * * * *" (was "0 */10 * * * *")\n' in changed
    assert "its five fields are second, minute" in warning
    assert "triggers[0].event_data: crontab is '*/10': give five fields" in cli.refused("apply")


def test_a_plan_shows_what_differs(cli: Cli) -> None:
    retries = "max_async_retry_attempts = 2"
    manifest(WHOLE.replace(retries, f"{retries}\nmax_async_event_age_in_seconds = 3600"))  # the default of the API
    cli("apply")
    text = WHOLE.replace("timeout = 60", "timeout = 90").replace("TOKEN = ", "OTHER = ").replace('"1h"', '"2h"')
    text = text.replace("max_async_retry_attempts = 2", "max_async_retry_attempts = 1").replace("rate = 5", "rate = 6")
    manifest(text.replace("partition_count = 2", "partition_count = 3").replace("ttl_in_days = 3", "ttl_in_days = 4"))
    Path("resize", "index.py").write_text(CODE + "\n")
    planned = cli.run("apply", "--plan")
    changes = {change["name"]: change for change in json.loads(cli.run("apply", "--plan", "--json")[1])["changes"]}
    cli("apply")

    assert [line for line in planned[1].splitlines() if not line.startswith("  ~ code")] == [
        "update stream clicks",
        "  ~ partition_count = 3 (was 2)",
        "update log stream shop/orders",
        "  ~ ttl_in_days = 4 (was 3)",
        "update function resize",
        "  ~ timeout = 90 (was 60)",
        '  + environment.OTHER = "******"',
        '  - environment.TOKEN (was "******")',
        "update asynchronous settings resize",
        "  ~ max_async_event_age_in_seconds = 86400 (was 3600)",
        "  ~ max_async_retry_attempts = 1 (was 2)",
        "update controls resize",
        "  ~ rate = 6.0 (was 5.0)",
        "update trigger TIMER hourly of report:!live",
        '  ~ schedule = "2h" (was "1h")',
        "0 to create, 6 to update, 0 to delete.",
    ]
    assert changes["clicks"]["fields"] == {"partition_count": {"old": 2, "new": 3}}
    assert cli("apply") == "Nothing to change.\n"


def test_what_a_manifest_does_not_name_stays(cli: Cli) -> None:
    manifest(WHOLE)
    cli("apply")
    before = cli.json("functions")
    manifest('[functions.resize]\ncode = "resize"\nhandler = "index.handler"\n')
    applied = cli("apply")

    assert applied.splitlines()[-1] == "Nothing to change."
    assert "  trigger WEBHOOK hook of resize" in applied.splitlines()
    assert "  function report" in applied.splitlines()
    assert cli.json("functions") == before


def test_equal_files_in_another_package_are_no_change(cli: Cli) -> None:
    with zipfile.ZipFile("resize.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("index.py", CODE)
    manifest('[functions.resize]\ncode = "resize.zip"\n')
    cli("apply")
    manifest('[functions.resize]\ncode = "resize"\n')
    same = cli("apply")
    Path("resize", "index.py").chmod(0o755)
    changed = cli.run("apply", "--plan")

    assert same == "Nothing to change.\n"
    assert (changed[0], "~ code = " in changed[1]) == (4, True)


def test_secrets_of_triggers_are_sent_again_on_request(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(WHOLE)
    cli("apply")
    monkeypatch.setenv("TOKEN", f"{SECRET}-2")
    cli("apply")  # the environment
    sent = cli("apply", "--secrets")

    assert 'update trigger WEBHOOK hook of resize\n  ~ secret = "******" (was "******")\n' in sent
    assert SECRET not in sent


def test_an_error_of_the_engine_shows_no_values_of_variables(cli: Cli) -> None:
    manifest('[functions.a]\nruntime = "${TOKEN}"\n')
    code, out, error = cli.run("apply", "--json")

    assert (code, SECRET in out + error) == (1, False)
    assert "runtime is '******'" in json.loads(out)["error"]


def test_the_first_error_stops_and_a_second_run_finishes(cli: Cli) -> None:
    text = '[functions.report]\ncode = "report.py"\n[functions.report.versions]\nv1 = {}\nv2 = {}\n'
    rest = '[functions.report.aliases]\nlive = { version = "v1" }\n'
    manifest(text + rest)  # v2 equals v1, which only the engine knows
    code, out, error = cli.run("apply")
    shown = json.loads(cli.run("apply", "--json")[1])
    manifest(text.replace("v2 = {}\n", "") + rest)
    second = cli("apply")

    assert (code, out.count("done ")) == (1, 2)
    assert error.splitlines()[0].startswith("functiond: cannot create version report:v2: FSS.")
    assert error.splitlines()[1:] == [
        "functiond: 2 of 4 changes are made; run the command again for the others",
        "  not done: create version report:v2",
        "  not done: create alias report:!live",
    ]
    assert (shown["done"], shown["error"][:4]) == (0, "FSS.")
    assert second.splitlines()[-1] == "done create alias report:!live"
    assert cli("apply") == "Nothing to change.\n"


class Proxy(BaseHTTPRequestHandler):
    """Proxy of an engine that calls ``changed`` when the engine has made a change, before the client is told."""

    url: str
    changed: Callable[[], None]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        reply = httpx.request(
            self.command,
            f"{self.url}{self.path}",
            content=body,
            headers={"Content-Type": "application/json"},
            trust_env=False,
            timeout=60,
        )
        if self.command != "GET":
            type(self).changed()
        try:
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)
        except OSError:
            pass  # the client was killed

    do_POST = do_GET  # noqa: N815  (names of the base class)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_apply_that_is_killed_after_each_change_is_finished_by_later_runs(cli: Cli, engine: EngineProcess) -> None:
    manifest(
        '[functions.report]\ncode = "report.py"\n[functions.report.versions]\nv1 = {}\n[topics.alarms]\n'
        '[[functions.report.triggers]]\ntrigger_type_code = "SMN"\nevent_data = { topic_urn = "alarms" }\n'
    )
    started = threading.Event()
    processes: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        started.wait()
        processes[-1].kill()
        processes[-1].wait()

    handler = type("Handler", (Proxy,), {"url": engine.url, "changed": staticmethod(kill)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [*PROGRAM, "apply", "functiond.toml", "--url", url, "--project", cli.project]
        codes: list[int] = []
        while not codes or codes[-1] == -signal.SIGKILL:
            started.clear()
            environment = {**CLEAN, "PYTHONPATH": str(ROOT)}
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment))
            started.set()
            codes.append(processes[-1].wait(60))
        server.shutdown()

    assert codes == [*[-signal.SIGKILL] * 4, 0]
    assert cli("apply") == "Nothing to change.\n"
    assert len(cli.json("triggers")) == 1


def test_prune_deletes_what_the_manifest_does_not_name(cli: Cli, engine: EngineProcess) -> None:
    other = cli.of_project(f"{cli.project}-other")
    manifest(WHOLE)
    cli("apply")
    other("apply")
    manifest('[functions.resize]\ncode = "resize"\n[topics.alarms]\n')
    planned = cli.run("apply", "--plan", "--prune")
    code, _, refused = cli.run("apply", "--prune")
    kept = cli.json("functions")
    cli("apply", "--prune", "--yes")

    assert planned[0] == 4
    assert [line for line in planned[1].splitlines() if line.startswith("delete")] == [
        "delete trigger TIMER nightly of resize",
        "delete trigger SMN alarms of resize",
        "delete trigger LTS shop of resize",
        "delete trigger WEBHOOK hook of resize",
        "delete trigger DIS clicks of resize",
        "delete asynchronous settings resize",
        "delete function report",
        "delete stream clicks",
        "delete log group shop",
    ]
    assert (code, "--prune would delete 9: nothing was changed; add --yes" in refused) == (2, True)
    assert len(kept) == 2
    assert [function["func_name"] for function in cli.json("functions")] == ["resize"]
    assert cli.json("stream", "list") == {"streams": [], "log_streams": []}
    assert cli("apply", "--prune") == "Nothing to change.\n"
    assert len(other.json("functions")) == 2


def test_prune_keeps_the_settings_that_a_version_was_published_with(cli: Cli) -> None:
    text = '[functions.report]\ncode = "report.py"\n[functions.report.async_invoke_config]\n'
    manifest(text)
    cli("apply")
    manifest(f"{text}[functions.report.versions.v1]\n")
    cli("apply")

    assert cli("apply", "--prune") == "Nothing to change.\n"


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("[functions.report]\n", "on_success.param: --prune would delete the function report: declare it"),
        ("[topics.alarms]\n", "on_failure.param: --prune would delete the topic alarms: declare it"),
        ("[streams.clicks]\n", "triggers[0].event_data: --prune would delete the stream clicks: declare it"),
        ("[functions.resize.versions.v1]\n", "aliases.live: --prune would delete the version v1: declare it"),
    ],
)
def test_prune_deletes_nothing_that_the_manifest_refers_to(cli: Cli, declared: str, problem: str) -> None:
    text = """
[functions.report]
[topics.alarms]
[streams.clicks]
[functions.resize.versions.v1]
[functions.resize.aliases.live]
version = "v1"
[functions.resize.async_invoke_config.destination_config]
on_success = { destination = "FunctionGraph", param = { func_urn = "report" } }
on_failure = { destination = "SMN", param = { topic_urn = "alarms" } }
[[functions.resize.triggers]]
trigger_type_code = "DIS"
event_data = { stream_name = "clicks", sharditerator_type = "LATEST" }
"""
    manifest(text)
    cli("apply")
    assert cli("apply", "--prune", "--plan") == "Nothing to change.\n"
    manifest(text.replace(declared, ""))

    assert problem in cli.refused("apply", "--prune", "--plan")
    assert "Nothing to change." in cli("apply", "--plan")


def test_prune_deletes_versions_and_aliases(cli: Cli) -> None:
    manifest(WHOLE)
    cli("apply")
    text = WHOLE.replace("[functions.report.versions.v1]\n", "").replace('description = "served"\n', "")
    text = text.replace('[functions.report.aliases.live]\nversion = "v1"\n', "").replace('qualifier = "!live"\n', "")
    manifest(text)
    deleted = cli("apply", "--prune", "--yes")

    assert "done delete alias report:!live" in deleted
    assert "done delete version report:v1" in deleted
    assert [trigger["func_urn"].rpartition(":")[2] for trigger in cli.json("triggers", "report")] == ["latest"]
    assert cli("apply", "--prune") == "Nothing to change.\n"


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_prune_asks_on_a_terminal_also_when_its_output_is_a_file(
    cli: Cli, engine: EngineProcess, tmp_path: Path, answer: str, left: int
) -> None:
    cli("deploy", "report.py")
    manifest("")
    command = ("apply", "functiond.toml", "--prune", "--project", cli.project)

    code, said = functiond_into_a_file(*command, url=engine.url, file=tmp_path / "file", typed=f"{answer}\n")

    assert "Delete 1? [y/N]" in said
    assert "y/N" not in (tmp_path / "file").read_text()
    assert code == (2 if left else 0)
    assert len(cli.json("functions")) == left


def test_an_export_applies_without_a_change_here_and_whole_elsewhere(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(WHOLE)
    cli("apply")
    monkeypatch.setenv("FUNCTIOND_FREE", "x")
    Path("out").mkdir()
    _, written, listed = cli.run("export", "out/functiond.toml", "--code", "out/code")
    text = Path("out", "functiond.toml").read_text()
    for name in ("RESIZE_TOKEN", "RESIZE_KEY", "RESIZE_API_KEY", "RESIZE_HOOK_SECRET"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("RESIZE_DATABASE_URL", SECRET_URL)
    here = cli("apply", "out/functiond.toml", "--prune")
    other = cli.of_project(f"{cli.project}-other")
    other("apply", "out/functiond.toml")

    assert "2 functions" in written
    assert SECRET not in text
    assert SECRET_URL not in text
    assert 'TOKEN = "${RESIZE_TOKEN}" # secret' in text
    for shown in (text, listed):
        assert "RESIZE_API_KEY, RESIZE_DATABASE_URL, RESIZE_HOOK_SECRET, RESIZE_KEY, RESIZE_TOKEN" in shown
    assert Path("out", "code", "resize", "index.py").read_text() == CODE
    assert here == "Nothing to change.\n"
    assert other("apply", "functiond.toml", "--prune") == "Nothing to change.\n"
    assert json.loads(other("invoke", "resize")) == [{}, "x${y}", SECRET]
    assert "exists: name another file" in cli.refused("export", "out/functiond.toml")
    assert "is not empty" in cli.refused("export", "--code", "out/code")


def test_an_export_with_secrets_is_a_file_that_only_its_owner_reads(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(WHOLE)
    cli("apply")
    Path("kept.toml").touch(0o644)
    _, _, listed = cli.run("export", "kept.toml", "--force", "--with-secrets")
    text = Path("kept.toml").read_text()
    monkeypatch.setenv("RESIZE_HOOK_SECRET", SECRET)  # the engine does not show it

    assert stat.S_IMODE(Path("kept.toml").stat().st_mode) == 0o600
    assert (text.count(SECRET), text.count(SECRET_URL)) == (3, 1)
    assert "set RESIZE_HOOK_SECRET in the environment" in listed
    assert cli("apply", "kept.toml", "--prune") == "Nothing to change.\n"
    assert "--with-secrets needs a file" in cli.refused("export", "--with-secrets")


def test_every_field_and_kind_is_exported(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(FIELDS)
    cli("apply")
    again = cli("apply", "--plan")
    cli("export", "exported.toml")
    text = Path("exported.toml").read_text()
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, SECRET_URL if name.endswith("URL") else SECRET)

    assert again == "Nothing to change.\n"
    assert SECRET not in text
    assert "TOOLS_RESIZE_KAFKA_KAFKA_PASSWORD_2" in text
    assert cli("apply", "exported.toml", "--plan", "--prune") == "Nothing to change.\n"


def test_numbers_among_the_variables_are_exported_as_text(
    cli: Cli, engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest("[functions.resize]\ncode = 'resize'\n")
    cli("apply")
    numbers = {"user_data": '{"SIZE": 1, "FAST": true}', "encrypted_user_data": '{"PIN": 7}'}
    httpx.patch(f"{engine.url}/v2/{cli.project}/fgs/functions/resize/config", json=numbers).raise_for_status()
    monkeypatch.setenv("RESIZE_PIN", "7")
    cli("export", "functiond.toml", "--force")

    assert 'SIZE = "1"\nFAST = "true"\n' in Path("functiond.toml").read_text()
    assert cli("apply") == "Nothing to change.\n"


def test_an_export_without_code_names_none(cli: Cli) -> None:
    manifest('[functions.resize]\ncode = "resize"\n')
    cli("apply")
    text = cli("export")
    manifest(text)

    assert "code =" not in text
    assert "Code is not included: see --code." in text
    assert cli("apply", "--prune") == "Nothing to change.\n"


def test_a_package_may_have_the_name_of_a_function(cli: Cli) -> None:
    manifest('[functions.resize]\ncode = "resize"\n[functions."resize:index"]\ncode = "resize"\n')
    cli("apply")
    cli("export", "export.toml", "--code", "code")

    assert cli("apply", "export.toml") == "Nothing to change.\n"
    assert cli.json("export")["functions"] == 2


def test_code_that_a_folder_cannot_hold_is_exported_as_a_package(cli: Cli) -> None:
    with zipfile.ZipFile("kept.zip", "w") as archive, zipfile.ZipFile("broken.zip", "w") as broken:
        archive.writestr("index.py", CODE)
        archive.writestr("__pycache__/index.cpython-311.pyc", b"left out of folders")
        broken.writestr("index.py", "def handler(")
    manifest('[functions.kept]\ncode = "kept.zip"\n[functions.broken]\ncode = "broken.zip"\n')
    cli("apply")
    cli("export", "export.toml", "--code", "code")

    assert {file.name for file in Path("code").iterdir()} == {"kept.zip", "broken.zip"}
    assert cli("apply", "export.toml") == "Nothing to change.\n"


def test_dependencies_are_installed_and_exported(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("index").mkdir()
    add_wheel(Path("index"), "tiny")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("resize", "requirements.txt").write_text("tiny\n")
    Path("resize", "index.py").write_text("import tiny\n\ndef handler(event, context):\n    return tiny.VALUE\n")
    manifest('[functions.resize]\ncode = "resize"\n')
    cli("apply")
    again = cli("apply")
    cli("export", "exported.toml", "--code", "code")

    assert json.loads(cli("invoke", "resize")) == 1
    assert again == "Nothing to change.\n"
    assert "install = false" in Path("exported.toml").read_text()
    assert cli("apply", "exported.toml") == "Nothing to change.\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[functions.a]\ntimout = 1\n", "functions.a.timout is 1: no such key: did you mean timeout?"),
        ('[functions.a]\ntimeout = "a"\n', "functions.a.timeout is 'a': must be a whole number from 3 to 259200"),
        ("[functions.a]\nx\n", "is not valid TOML: Expected '=' after a key in a key/value pair (at line 2"),
        ('[functions.a]\ncode = "none"\n', "functions.a.code is 'none': "),
        ('[functions.a]\ncode = "empty"\n', "/empty contains no files"),
        ("[functions.a.environment]\nA = 1\n", 'functions.a.environment.A is 1: must be text: write "1"'),
        ('[functions.a.environment]\nA = "${NONE}"\n', "functions.a.environment.A needs the environment variable NONE"),
        ('[functions.a]\nhandler = "${NO"\n', "functions.a.handler has ${NO: write ${NAME}"),
        ('[functions.a]\nuser_data = "{}"\n', "functions.a.user_data: use environment"),
        ("[functions.1]\n", "functions.1: the name of a function needs a letter"),
        ("[functions.a.versions.v1]\ndesc = 1\n", "functions.a.versions.v1.desc is 1: no such key: expected one of"),
        ("[functions.a.controls]\nrat = 1\n", "functions.a.controls.rat is 1: no such key: did you mean rate?"),
        ("[log_groups.g]\n", "log_groups.g.ttl_in_days: it is required"),
        ("[function.a]\n", "function: no such key: did you mean functions?"),
        ("[http]\nport = 1\n", "http is a setting of the engine, for serve --config"),
        ("[topics.t]\ndisplay_name = 2026-01-01\n", "topics.t.display_name is 2026-01-01, which JSON does not have"),
        (
            '[[functions.a.triggers]]\ntrigger_type_code = "TIMER"\nevent_data = { nam = "a" }\n',
            "functions.a.triggers[0].event_data.nam: no such key: did you mean name?",
        ),
        (
            '[[functions.a.triggers]]\ntrigger_type_code = "TIMR"\nevent_data = {}\n',
            "functions.a.triggers[0].trigger_type_code is 'TIMR': did you mean TIMER?",
        ),
        (
            '[[functions.a.triggers]]\ntrigger_type_code = "TIMER"\nqualifier = "!live"\n'
            'event_data = { name = "n", schedule_type = "Rate", schedule = "1d" }\n',
            "functions.a.triggers[0].qualifier: no alias live of a: there are none",
        ),
        (
            '[functions.a.versions.v1]\n[functions.a.aliases.live]\nversion = "v2"\n',
            "functions.a.aliases.live: no version v2 of a: expected one of v1",
        ),
        (
            '[functions.a.aliases.live]\nversion = "latest"\nadditional_version_weights = { x = 10 }\n',
            "functions.a.aliases.live: no version x of a: there are none",
        ),
        (
            '[[functions.a.triggers]]\ntrigger_type_code = "SMN"\nevent_data = { topic_urn = "orders" }\n',
            "functions.a.triggers[0].event_data: no topic orders: there are none",
        ),
        (
            '[functions.a.async_invoke_config.destination_config.on_success]\ndestination = "FunctionGraph"\n'
            'param = { func_urn = "b" }\n',
            "functions.a.async_invoke_config.destination_config.on_success.param: no function b: expected one of a",
        ),
        (
            '[functions.a.async_invoke_config.destination_config.on_success]\ndestination = "OBS"\n'
            'param = { bucket = "out", expires = 400 }\n',
            "functions.a.async_invoke_config.destination_config.on_success.param.expires is 400: must be",
        ),
    ],
)
def test_a_bad_manifest_is_told_and_nothing_is_sent(cli: Cli, text: str, problem: str) -> None:
    Path("empty").mkdir()
    manifest(text)

    assert problem in cli.refused("apply")
    assert cli.json("functions") == []


def test_a_missing_file_is_told(cli: Cli) -> None:
    assert "cannot read none.toml: No such file or directory" in cli.refused("apply", "none.toml")
