"""Commands for triggers, topics, streams, versions and aliases, in this process, with an engine in another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from engine.cli.commands import run
from tests.acceptance.engine_process import ECHO
from tests.support.cli import Cli
from tests.support.engine_process import EngineProcess, engine_process
from tests.support.gateways import API


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("resources")
    (folder / "echo.py").write_text(ECHO)
    with engine_process(folder) as running:
        assert run(["deploy", str(folder / "echo.py"), "--url", running.url]) == 0
        yield running


@pytest.fixture
def cli(engine: EngineProcess, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(engine.url, capsys)


def test_a_trigger_is_created_changed_listed_and_deleted(cli: Cli) -> None:
    timer = ("name=nightly", "schedule_type=Rate", "schedule=15m")
    made = cli.json("trigger", "create", "echo", "timer", *timer, "--status", "DISABLED")
    changed = cli.json("trigger", "update", "nightly", "schedule=2h", 'user_event="5"', "--status", "ACTIVE")
    shown = cli.json("trigger", "show", made["trigger_id"])
    listed = cli("triggers", "echo").splitlines()
    moved = cli.refused("trigger", "seek", "nightly", "orders/0=1200", code=1)
    deleted = cli("trigger", "delete", made["trigger_id"])

    assert (made["trigger_type_code"], made["trigger_status"]) == ("TIMER", "DISABLED")
    assert changed["event_data"] == {**made["event_data"], "schedule": "2h", "user_event": "5"}
    assert (shown["trigger_status"], shown["mode"], shown["mode_fixed"]) == ("ACTIVE", "async", True)
    assert [part in listed[1] for part in ("asynchronous (fixed)", "nightly", "2h")] == [True] * 3
    assert "the position of its source cannot be set" in moved
    assert "deleted TIMER trigger " in deleted
    assert cli.json("triggers", "echo") == []


def test_a_timer_takes_a_crontab_and_tells_when_it_is_due(cli: Cli) -> None:
    crontab = "CRON_TZ=Asia/Shanghai 30 6 * * *"
    created = cli("trigger", "create", "echo", "TIMER", "name=early", "--crontab", crontab)
    data = cli.json("trigger", "show", "early")["event_data"]
    listed = cli("triggers", "echo").splitlines()[1]
    code, changed, warning = cli.run("trigger", "update", "early", "schedule=*/10 * * * *")
    hint = cli.refused("trigger", "update", "early", "--crontab", "0 25 * * *")
    updated = cli("trigger", "update", "early", "--crontab", "*/10 * * * *")
    cli("trigger", "delete", "early")

    assert data == {"name": "early", "schedule_type": "Cron", "schedule": "CRON_TZ=Asia/Shanghai 0 30 6 * * *"}
    assert len(re.findall(r"\d{4}-\d\d-\d\d 06:30:00", created)) == 3
    assert created.endswith(" (Asia/Shanghai)\n")
    assert re.search(r" 0 30 6 \* \* \* +\d{4}-\d\d-\d\d 06:30:00 \(Asia/Shanghai\)", listed)
    assert (code, "its five fields are second, minute" in warning, "'0 */10 * * * *'" in warning) == (0, True, True)
    assert seconds_between(*due_times(changed)[:2]) == 10
    assert hint == "functiond: crontab is '0 25 * * *': the hour '25' must be from 0 to 23\n"
    assert seconds_between(*due_times(updated)[:2]) == 600


def due_times(text: str) -> list[datetime]:
    return [datetime.fromisoformat(moment) for moment in re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text)]


def seconds_between(first: datetime, second: datetime) -> float:
    return (second - first).total_seconds()


def test_the_invocations_of_a_trigger_are_listed_also_after_its_deletion(cli: Cli, engine: EngineProcess) -> None:
    made = cli.json("trigger", "create", "echo", "EVENTGRID", "channel_id=c", "trigger_name=shop")
    event = b'{"specversion": "1.0", "id": "1", "source": "shop", "type": "paid", "data": 1}'
    headers = {"Content-Type": "application/cloudevents+json"}
    with urlopen(Request(f"{engine.url}/triggers/eventgrid/c", event, headers)):
        pass
    cli("invoke", "echo", "--async")
    [listed] = cli.json("invocations", "--trigger", "shop")
    cli("trigger", "delete", "shop")

    assert cli.json("invocations", "echo", "--trigger", made["trigger_id"])[0]["request_id"] == listed["request_id"]
    assert f"trigger   {made['trigger_id']}" in cli("show", listed["request_id"])
    assert "no trigger shop: " in cli.refused("invocations", "--trigger", "shop")


def test_the_list_of_triggers_has_modes_and_addresses(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({**API, "name": "orders", "func_info": {}}))
    cli("trigger", "create", "echo", "APIG", "--data", str(tmp_path / "data.json"))
    first = cli("triggers", "echo").splitlines()[1]
    cli("trigger", "delete", "orders")
    secret = "0123456789abcdef"
    hook = cli.json("trigger", "create", "echo", "WEBHOOK", "name=pushes", f"secret={secret}")
    third = cli("triggers", "echo").splitlines()[1]
    cli("trigger", "delete", "pushes")

    assert " synchronous  orders  http://" in first
    assert f"/triggers/webhook/{hook['trigger_id']}" in third
    assert secret not in third


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("create", "echo", "TIMR", "name=a"), "TIMR is not a type of triggers: did you mean TIMER?"),
        (("create", "echo", "TIMER", "name"), "'name' is not a field and its value: write NAME=VALUE"),
        (("create", "echo", "TIMER", "name=a", "name=b"), "name is given twice"),
        (("create", "echo", "TIMER", "--data", "/none.json"), "--data is /none.json: No such file"),
        (("create", "echo", "SMN", "--crontab", "0 3 * * *"), "only triggers of the type TIMER have a schedule"),
        (("create", "echo", "TIMER", "schedule=1d", "--crontab", "0 3 * * *"), "in place of schedule"),
        (("create", "echo", "TIMER", "--status", "ON"), "--status"),
        (("update", "nothing"), "nothing to change"),
        (("update", "nothing", "schedule=1m"), "no trigger nothing"),
        (("delete", "nothing"), "no trigger nothing"),
    ],
)
def test_a_wrong_use_of_trigger_is_told(cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    assert problem in cli.refused("trigger", *arguments)


def test_a_name_of_several_triggers_is_refused_with_their_ids(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "second.py").write_text(ECHO)
    cli("deploy", tmp_path / "second.py")
    timer = ("TIMER", "name=twice", "schedule_type=Rate", "schedule=1d")
    ids = [cli.json("trigger", "create", function, *timer)["trigger_id"] for function in ("echo", "second")]
    error = cli.refused("trigger", "delete", "twice")
    for trigger_id in ids:
        cli("trigger", "delete", trigger_id)

    assert "several triggers are named twice" in error
    assert all(trigger_id in error for trigger_id in ids)


def test_a_topic_calls_subscribed_functions(cli: Cli, engine: EngineProcess) -> None:
    made = cli.json("topic", "create", "orders")
    again = cli.json("topic", "create", "orders")
    cli("topic", "update", "orders", "--display-name", "Orders")
    cli("topic", "subscribe", "orders", "echo")
    [subscription] = cli.json("topic", "subscriptions", "orders")
    cli("topic", "publish", "orders", "hello", "--subject", "greeting")
    listed = cli("topic", "list").splitlines()
    ran = cli.json("invocations", "echo", "--trigger", subscription["trigger_id"])
    cli("trigger", "delete", subscription["trigger_id"])
    cli("topic", "delete", made["topic_urn"])

    assert (made["created"], again["created"], again["topic_urn"]) == (True, False, made["topic_urn"])
    assert listed[1].split()[:3] == ["orders", "Orders", made["topic_urn"]]
    assert len(ran) == 1
    assert cli("topic", "list") == "No topics.\n"
    assert "no topic order: there are none" in cli.refused("topic", "delete", "order")
    assert "SMN.0002" in cli.refused("topic", "create", "a b", code=1)


def test_data_streams_and_log_streams_are_made_and_changed(cli: Cli) -> None:
    cli("stream", "create", "clicks", "--partitions", "2", "--hours", "48")
    cli("stream", "update", "clicks", "--partitions", "3", "--data-type", "JSON")
    cli("stream", "create", "shop/orders", "--days", "3")
    cli("stream", "update", "shop/orders", "--days", "30")
    listed = [line.split() for line in cli("stream", "list").splitlines()[1:]]
    [data] = cli.json("stream", "list")["streams"]
    unknown = cli.refused("stream", "delete", "shop/order")
    cli("stream", "delete", "clicks")
    cli("stream", "delete", "shop/orders")
    cli("stream", "delete", "shop", "--group")

    assert listed == [["clicks", "data", "3", "48", "h"], ["shop/orders", "log", "30", "days"]]
    assert data["data_type"] == "JSON"
    assert "no log stream order in the group shop: did you mean orders?" in unknown
    assert cli("stream", "list") == "No streams.\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("create", "clicks", "--days", "3"), "--days is for a log stream, GROUP/NAME: clicks is a data stream"),
        (("create", "shop/orders", "--hours", "24"), "--hours is for a data stream: shop/orders is a log stream"),
        (("create", "clicks", "--hours", "5"), "--hours"),
        (("update", "clicks"), "nothing to change: give --partitions, --hours or --data-type"),
        (("update", "shop/orders", "--days", "3"), "no log group shop"),
        (("delete", "shop", "--group"), "no log group shop: there are none"),
    ],
)
def test_a_wrong_use_of_stream_is_told(cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    assert problem in cli.refused("stream", *arguments)


def test_versions_and_aliases_are_published_changed_and_deleted(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "aged.py"
    for number in ("1", "2"):
        file.write_text(f"def handler(event, context):\n    return {number}\n")
        cli("deploy", str(file))
        cli("version", "publish", "aged", "--name", f"v{number}", "--description", f"number {number}")
    unchanged = cli.refused("version", "publish", "aged", code=1)
    cli("alias", "create", "aged", "live", "v1", "--description", "served")
    live = cli.json("alias", "list", "aged")[0]["alias_urn"]
    first = cli("invoke", live)
    cli("alias", "update", "aged", "live", "--version", "v2", "--weight", "v1=0")
    second = cli("invoke", live)
    rows = [line.split() for line in cli("alias", "list", "aged").splitlines()[1:]]
    in_use = cli.refused("version", "delete", "aged", "v1", code=1)
    cli("alias", "update", "aged", "live", "--no-weights")
    cli("version", "delete", "aged", "v1")
    versions = [line.split()[0] for line in cli("version", "list", "aged").splitlines()[1:]]
    cli("alias", "delete", "aged", "live")

    assert (first.strip(), second.strip()) == ("1", "2")
    assert rows == [["live", "v2", "v1", "0", "%", "served"]]
    assert "v2" in unchanged
    assert "live" in in_use
    assert sorted(versions) == ["latest", "v2"]
    assert cli("alias", "list", "aged") == "No aliases.\n"
    assert "--weight is v2: it must look like" in cli.refused("alias", "create", "aged", "x", "v1", "--weight", "v2")
    assert "nothing to change" in cli.refused("alias", "update", "aged", "x")


def test_services_of_a_remote_endpoint_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"ENDPOINT": "http://127.0.0.1:9", "ACCESS_KEY": "a", "SECRET_KEY": "b", "PROJECT_ID": "p"}
    environ = {f"FUNCTIOND_PLUGINS__SMN__{name}": value for name, value in settings.items()}
    with engine_process(tmp_path, environ=environ) as running:
        cli = Cli(running.url, capsys)

        assert "unless plugins.<name>.endpoint names a remote service" in cli.refused("topic", "create", "a", code=1)
        assert cli("export").startswith("# Project default")
