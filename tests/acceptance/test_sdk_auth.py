"""Vendor's SDK, unmodified, and raw requests to an engine that requires credentials."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.auth.signing import sign
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.acceptance.sdk import SDK_WARNINGS, Platform, create, fg, refused, sdk_client, sdk_home
from tests.support.cli import functiond_here
from tests.support.engine_process import functiond
from tests.support.http_app import PROJECT, urn_of

SECRET, OTHER_SECRET = "the-secret-of-a-key", "the-secret-of-another"
TOKEN, SECURITY = "a-token-of-a-project", "security-token-of-temp"
OTHER = "0" * 32
FILE = f"""
[[keys]]
access = "AK1"
secret = "{SECRET}"
project = "{PROJECT}"
[[keys]]
access = "TEMP"
secret = "{SECRET}"
project = "{PROJECT}"
token = "{SECURITY}"
expires = 2100-01-01T00:00:00Z
[[keys]]
access = "AK2"
secret = "{OTHER_SECRET}"
project = "{OTHER}"
[[tokens]]
token = "{TOKEN}"
project = "{PROJECT}"
"""
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
    file = credentials_file(folder)
    settings = {"FUNCTIOND_AUTH__FILE": str(file), "FUNCTIOND_AUTH__FAILURES": "10000"}
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        secured = Secured(engine=engine, stack=stack)
        create(Platform(engine=engine, client=secured.client()), "hello")
        yield secured


def credentials_file(folder: Path, mode: int = 0o600) -> Path:
    file = folder / "credentials.toml"
    file.write_text(FILE)
    file.chmod(mode)
    return file


def show(client: Any, urn: str = urn_of()) -> Any:
    return client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn))


def invoking() -> Any:
    return fg.AsyncInvokeFunctionRequest(function_urn=urn_of(), body={"k": "v", "u": "é中"})


def test_an_sdk_with_the_right_secret_is_served(secured: Secured) -> None:
    client = secured.client()

    page = client.list_functions(fg.ListFunctionsRequest(func_name="hel", maxitems="10", marker="0"))
    call = fg.InvokeFunctionRequest(
        function_urn=urn_of(), x_cff_log_type="tail", x_cff_request_version="v1", body={"é": " a  b "}
    )

    assert show(client).func_name == "hello"
    assert show(secured.client(access="TEMP", token=SECURITY)).func_name == "hello"
    assert page.count == 1
    assert client.async_invoke_function(invoking()).request_id
    assert json.loads(client.invoke_function(call).result) == {"é": " a  b "}


def test_a_token_stands_in_for_a_signature(secured: Secured) -> None:
    stranger = secured.client(access="AK3")

    with_token = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN)
    wrong = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN + "x")

    assert with_token.invoke().request_id
    with refused(401, "FSS.0401", "the access key is not one of this engine's"):
        wrong.invoke()


def test_a_presigned_authorization_is_taken_and_is_good_for_its_request_only(secured: Secured) -> None:
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of().replace(':', '%3A')}/config"
    host = f"127.0.0.1:{secured.engine.port}"
    given = sign("GET", path, {"Host": host}, b"", access="AK1", secret=SECRET, moment=time.time())
    stranger = secured.client(access="AK3")

    def presigned(invoker: Any) -> Any:
        for name, value in given.items():
            invoker.add_header(name, value)
        return invoker.invoke()

    request = fg.ShowFunctionConfigRequest(function_urn=urn_of())
    assert presigned(stranger.show_function_config_invoker(request)).func_name == "hello"
    with refused(401, "FSS.0401", "the signature does not match"):
        presigned(stranger.list_functions_invoker(fg.ListFunctionsRequest()))


def signed(engine: EngineProcess, method: str, target: str, body: bytes = b"", **more: str) -> dict[str, str]:
    """Send a signed request with raw colons in the path, as curl does."""
    given = {name.replace("_", "-"): value for name, value in more.items()}
    headers = {"Host": f"127.0.0.1:{engine.port}", "Content-Type": "application/json", **given}
    return headers | sign(method, target, headers, body, access="AK1", secret=SECRET, moment=time.time())


def test_curl_with_raw_colons_and_a_token_or_signature_is_served(secured: Secured) -> None:
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of()}/config"

    by_token = secured.engine.ask("GET", path, headers={"X-Auth-Token": TOKEN})
    by_signature = secured.engine.ask("GET", path, headers=signed(secured.engine, "GET", path))
    by_nothing = secured.engine.ask("GET", path)

    assert (by_token.status, by_signature.status, by_nothing.status) == (200, 200, 401)


def test_a_proxy_on_this_machine_passes_on_signed_requests_under_its_own_name(secured: Secured) -> None:
    engine, path, token = secured.engine, f"/v2/{PROJECT}/fgs/functions", {"X-Auth-Token": TOKEN}
    proxied = {"Host": "api.example.com"}

    by_signature = engine.ask("GET", path, headers=signed(engine, "GET", path, Host="api.example.com"))
    by_token = engine.ask("GET", path, headers=token | proxied)
    by_page = engine.ask("GET", path, headers=token | proxied | {"Origin": "https://api.example.com"})
    by_nothing = engine.ask("GET", path, headers=proxied)
    by_foreign_page = engine.ask("GET", path, headers=token | proxied | {"Origin": "https://evil.example"})

    assert [one.status for one in (by_signature, by_token, by_page)] == [200, 200, 200]
    assert [one.status for one in (by_nothing, by_foreign_page)] == [401, 403]


def test_a_proxy_on_this_machine_passes_on_webhooks(secured: Secured) -> None:
    engine, token = secured.engine, {"X-Auth-Token": TOKEN}
    options = {"name": "pushes", "secret": "16-characters-or-more", "scheme": "github"}
    body = {"trigger_type_code": "WEBHOOK", "event_data": options}
    made = engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of()}", body, headers=token)
    path, proxied = f"/triggers/webhook/{made.json['trigger_id']}", {"Host": "hooks.example.com"}
    signature = "sha256=" + hmac.digest(options["secret"].encode(), b"{}", "sha256").hex()

    pushed = engine.ask("POST", path, b"{}", headers=proxied | {"X-Hub-Signature-256": signature})
    unsigned = engine.ask("POST", path, b"{}", headers=proxied)

    assert (pushed.status, unsigned.status) == (202, 401)


def test_secrets_reach_neither_the_log_nor_a_child(secured: Secured) -> None:
    client = secured.client()
    create(Platform(engine=secured.engine, client=client), "spy", SPY)
    secrets = (SECRET, OTHER_SECRET, TOKEN, SECURITY)
    with refused(401, "FSS.0401", ""):
        show(secured.client(secret=OTHER_SECRET))

    seen = client.invoke_function(fg.InvokeFunctionRequest(function_urn=urn_of("spy"), body={})).raw_content.decode()
    logged = "".join(secured.engine.log)

    assert "RUNTIME_PROJECT_ID" in seen
    assert '"not authenticated"' in logged
    assert not [secret for secret in secrets if secret in seen + logged]
    assert "credentials" not in seen  # not even the path of the credentials file


def test_with_credentials_any_address_is_listened_on_by_any_name(tmp_path: Path) -> None:
    settings = {
        "FUNCTIOND_AUTH__FILE": str(credentials_file(tmp_path)),
        "FUNCTIOND_AUTH__OPEN_METRICS": "true",
        "FUNCTIOND_HTTP__HOST": "0.0.0.0",
    }
    with engine_on(tmp_path / "data", **settings) as engine:
        path, token = f"/v2/{PROJECT}/fgs/functions", {"X-Auth-Token": TOKEN}

        assert engine.ask("GET", path, headers=token | {"Host": "engine.example"}).status == 200
        assert engine.ask("GET", path, headers={"Host": "engine.example"}).status == 401
        assert engine.ask("GET", path, headers=token | {"Origin": "https://evil.example"}).status == 403
        assert {engine.ask("GET", open_path).status for open_path in ("/metrics", "/readyz")} == {200}


def test_without_credentials_an_address_that_others_reach_is_not_listened_on(tmp_path: Path) -> None:
    done = functiond("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")

    assert done.returncode == 2
    assert "is reachable from other machines" in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_engine_does_not_start_with_a_file_that_others_may_read(tmp_path: Path) -> None:
    environ = {"FUNCTIOND_AUTH__FILE": str(credentials_file(tmp_path, 0o644))}

    done = functiond("serve", "--port", "0", "--data-dir", tmp_path / "data", environ=environ)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "(mode 0644): chmod 600" in done.stderr


def test_settings_are_listed_without_secrets(tmp_path: Path) -> None:
    done = functiond_here("settings", environ={"FUNCTIOND_AUTH__FILE": str(credentials_file(tmp_path))})

    assert "auth.file" in done.stdout
    assert not [secret for secret in (SECRET, TOKEN, SECURITY) if secret in done.stdout]
