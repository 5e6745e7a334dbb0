"""Engine that requires credentials: the vendor's SDK, raw requests, and a reload of the credentials by SIGHUP."""

from __future__ import annotations

import hmac
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.cli.output import USAGE
from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, until
from tests.acceptance.sdk import SDK_WARNINGS, Platform, ask, call, create, fg, refused, sdk_client, sdk_home, send
from tests.support.cli import functiond_here
from tests.support.credentials import credentials_file, key, token
from tests.support.http_app import PROJECT, urn_of

SECRET, OTHER_SECRET = "the-secret-of-a-key", "the-secret-of-another"
TOKEN, SECURITY = "a-token-of-a-project", "security-token-of-temp"
OTHER = "0" * 32
TABLES = (
    key("AK1", SECRET, PROJECT),
    key("TEMP", SECRET, PROJECT, token=SECURITY) + "expires = 2100-01-01T00:00:00Z\n",
    key("AK2", OTHER_SECRET, OTHER),
    token(TOKEN, PROJECT),
)
SPY = """
import os

def handler(event, context):
    held = []
    for number in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    with open("/proc/self/cmdline") as command:
        return {"environment": dict(os.environ), "command": command.read(), "held": held}
"""

pytestmark = SDK_WARNINGS


class Secured(Struct):
    engine: EngineProcess
    stack: ExitStack

    def client(self, access: str = "AK1", secret: str = SECRET, token: str = "") -> Any:
        return sdk_client(self.engine.port, self.stack, access, secret, project=PROJECT, token=token)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("auth")
    settings = {**credentials_file(folder, *TABLES), "FUNCTIOND_AUTH__FAILURES": "10000"}
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        secured = Secured(engine=engine, stack=stack)
        create(Platform(engine=engine, client=secured.client()), "hello")
        yield secured


def show(client: Any, urn: str = urn_of()) -> Any:
    return send(client, "ShowFunctionConfig", function_urn=urn)


def invoking() -> Any:
    return fg.AsyncInvokeFunctionRequest(function_urn=urn_of(), body={"k": "v", "u": "é中"})


def test_an_sdk_with_the_right_secret_is_served(secured: Secured) -> None:
    client = secured.client()

    page = send(client, "ListFunctions", func_name="hel", maxitems="10", marker="0")
    called = call(Platform(engine=secured.engine, client=client), "hello", {"é": " a  b "})

    assert show(client).func_name == "hello"
    assert show(secured.client(access="TEMP", token=SECURITY)).func_name == "hello"
    assert page.count == 1
    assert client.async_invoke_function(invoking()).request_id
    assert json.loads(called.result) == {"é": " a  b "}


def test_a_token_stands_in_for_a_signature(secured: Secured) -> None:
    stranger = secured.client(access="AK3")

    with_token = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN)
    wrong = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN + "x")

    assert with_token.invoke().request_id
    with refused(401, "FSS.0401", "the access key is not one of this engine's"):
        wrong.invoke()


def test_a_proxy_on_this_machine_passes_on_webhooks(secured: Secured) -> None:
    engine = secured.engine
    options = {"name": "pushes", "secret": "16-characters-or-more", "scheme": "github"}
    body = {"trigger_type_code": "WEBHOOK", "event_data": options}
    made = engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of()}", body, headers={"X-Auth-Token": TOKEN})
    path, proxied = f"/triggers/webhook/{made.json['trigger_id']}", {"Host": "hooks.example.com"}
    signature = "sha256=" + hmac.digest(options["secret"].encode(), b"{}", "sha256").hex()

    pushed = engine.ask("POST", path, b"{}", headers=proxied | {"X-Hub-Signature-256": signature})
    unsigned = engine.ask("POST", path, b"{}", headers=proxied)

    assert (pushed.status, unsigned.status) == (202, 401)


def test_secrets_reach_neither_the_log_nor_a_child(secured: Secured) -> None:
    client = secured.client()
    platform = Platform(engine=secured.engine, client=client)
    create(platform, "spy", SPY)
    secrets = (SECRET, OTHER_SECRET, TOKEN, SECURITY)
    with refused(401, "FSS.0401", ""):
        show(secured.client(secret=OTHER_SECRET))

    seen = ask(platform, "InvokeFunction", "spy", body={}).raw_content.decode()
    logged = "".join(secured.engine.log)

    assert "RUNTIME_PROJECT_ID" in seen
    assert '"not authenticated"' in logged
    assert not [secret for secret in secrets if secret in seen + logged]
    assert "credentials" not in seen  # not even the path of the credentials file


def test_settings_are_listed_without_secrets(tmp_path: Path) -> None:
    done = functiond_here("settings", environ=credentials_file(tmp_path, *TABLES))

    assert "auth.file" in done.stdout
    assert not [secret for secret in (SECRET, TOKEN, SECURITY) if secret in done.stdout]


OLD, NEW = "the-token-of-before", "the-token-of-after"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", **credentials_file(tmp_path, token(OLD, "p1"))) as engine:
        yield engine


def told(engine: EngineProcess) -> list[Any]:
    """Return the log lines about credentials."""
    return [line for line in map(json.loads, list(engine.log)) if line["event"].startswith("credentials")]


def hang_up(engine: EngineProcess) -> Any:
    """Send SIGHUP and return the log line that follows."""
    before = len(told(engine))
    engine.signal(signal.SIGHUP)
    return until(lambda: told(engine)[before:])[0]


def admits(engine: EngineProcess, token: str) -> bool:
    return engine.ask("GET", BASE, headers={"X-Auth-Token": token}).status != 401


def test_new_credentials_hold_and_the_old_ones_end_without_a_restart(engine: EngineProcess) -> None:
    before = admits(engine, OLD), admits(engine, NEW)

    credentials_file(engine.data.parent, token(NEW, "p1"))
    line = hang_up(engine)

    assert (line["event"], line["tokens"]) == ("credentials replaced", 1)
    assert (before, (admits(engine, OLD), admits(engine, NEW))) == ((True, False), (False, True))


@pytest.mark.parametrize("other", ["p1", "p2"])
def test_two_projects_without_a_sandbox_are_refused_at_the_start_and_by_a_reload(other: str, tmp_path: Path) -> None:
    environment = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", "PATH": str(tmp_path)}  # without bwrap
    both = (token(OLD, "p1"), token(NEW, other))
    with engine_on(tmp_path / "data", **credentials_file(tmp_path, token(OLD, "p1")), **environment) as engine:
        credentials_file(tmp_path, *both)
        line = hang_up(engine)
        assert (admits(engine, OLD), admits(engine, NEW)) == (True, other == "p1")
        engine.stop()
        if other == "p1":
            assert line["event"] == "credentials replaced"
            engine.start()
        else:
            assert "install bubblewrap" in line["problem"]
            with pytest.raises(AssertionError, match=r"of 2 projects.*bubblewrap is not installed.*= ..process.."):
                engine.start()
            assert engine.wait() == USAGE


def test_bad_credentials_change_nothing_and_are_told(engine: EngineProcess) -> None:
    problems, file = [], engine.data.parent / "credentials.toml"

    for text, mode in (("no toml", 0o600), ("[[tokens]]\ntoken = 'short'", 0o600), (f"# {NEW}", 0o644), ("", 0o600)):
        file.write_text(text)
        file.chmod(mode)
        problems.append(hang_up(engine)["problem"])
    file.unlink()
    problems.append(hang_up(engine)["problem"])

    for problem, reason in zip(problems, ("TOML", "length", "chmod 600", "no credentials", "cannot read"), strict=True):
        assert reason in problem
    assert (admits(engine, OLD), admits(engine, NEW)) == (True, False)
