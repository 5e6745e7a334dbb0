"""Vendor's SDK, unmodified, and raw requests to an engine that requires credentials."""

from __future__ import annotations

import base64
import hmac
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.auth.signing import sign, write_date
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.support.engine_process import functiond
from tests.support.http_app import PROJECT, urn_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
    from huaweicloudsdkfunctiongraph import v2 as fg

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
access = "OLD"
secret = "{SECRET}"
project = "{PROJECT}"
expires = 2020-01-01T00:00:00Z
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

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


class Platform(Struct):
    engine: EngineProcess
    client: Callable[..., Any]  #: returns an SDK client with these credentials


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("auth")
    file = credentials_file(folder)
    settings = {"FUNCTIOND_AUTH__FILE": str(file), "FUNCTIOND_AUTH__FAILURES": "10000"}
    with (
        pytest.MonkeyPatch.context() as patch,
        engine_on(folder / "data", **settings) as engine,
        ExitStack() as stack,
    ):
        patch.setenv("HOME", str(folder))  # the SDK writes a file to it

        def client(access: str = "AK1", secret: str = SECRET, project: str = PROJECT, token: str | None = None) -> Any:
            credentials = BasicCredentials(access, secret, project)
            if token:
                credentials = credentials.with_security_token(token)
            builder = fg.FunctionGraphClient.new_builder().with_credentials(credentials)
            made = builder.with_endpoint(f"http://127.0.0.1:{engine.port}").build()
            stack.callback(lambda: made._http_client._session.close())
            return made

        create(client(), "hello")
        yield Platform(engine=engine, client=client)


def credentials_file(folder: Path, mode: int = 0o600) -> Path:
    file = folder / "credentials.toml"
    file.write_text(FILE)
    file.chmod(mode)
    return file


def create(client: Any, name: str, source: str = "def handler(event, context):\n    return event\n") -> None:
    body = fg.CreateFunctionRequestBody(
        func_name=name,
        package="default",
        runtime="Python3.10",
        handler="index.handler",
        timeout=30,
        memory_size=128,
        code_type="inline",
        func_code=fg.FuncCode(file=base64.b64encode(source.encode()).decode()),
    )
    client.create_function(fg.CreateFunctionRequest(body=body))


def show(client: Any, urn: str = urn_of()) -> Any:
    return client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn))


def invoking() -> Any:
    return fg.AsyncInvokeFunctionRequest(function_urn=urn_of(), body={"k": "v", "u": "é中"})


@contextmanager
def refused(status: int, code: str, said: str) -> Iterator[None]:
    with pytest.raises(ClientRequestException) as caught:
        yield
    assert (caught.value.status_code, caught.value.error_code) == (status, code)
    assert said in caught.value.error_msg
    assert caught.value.request_id


def test_an_sdk_with_the_right_secret_is_served(platform: Platform) -> None:
    client = platform.client()

    page = client.list_functions(fg.ListFunctionsRequest(func_name="hel", maxitems="10", marker="0"))
    call = fg.InvokeFunctionRequest(
        function_urn=urn_of(), x_cff_log_type="tail", x_cff_request_version="v1", body={"é": " a  b "}
    )

    assert show(client).func_name == "hello"
    assert page.count == 1
    assert client.async_invoke_function(invoking()).request_id
    assert json.loads(client.invoke_function(call).result) == {"é": " a  b "}


def test_every_kind_of_wrong_credentials_is_refused(platform: Platform) -> None:
    with refused(401, "FSS.0401", "the signature does not match"):
        show(platform.client(secret="not-the-secret-of-it"))
    with refused(401, "FSS.0401", "the access key is not one of this engine's"):
        show(platform.client(access="AK3"))
    with refused(401, "FSS.0401", "the access key has expired"):
        show(platform.client(access="OLD"))
    with refused(401, "FSS.0401", "the signature does not match"):
        platform.client(secret=OTHER_SECRET).async_invoke_function(invoking())


def test_a_temporary_key_goes_with_its_security_token(platform: Platform) -> None:
    assert show(platform.client(access="TEMP", token=SECURITY)).func_name == "hello"
    with refused(401, "FSS.0401", "X-Security-Token must be that of the access key"):
        show(platform.client(access="TEMP"))
    with refused(401, "FSS.0401", "X-Security-Token must be that of the access key"):
        show(platform.client(access="TEMP", token="another-security-token"))


def test_another_project_is_out_of_reach_by_path_and_by_urn(platform: Platform) -> None:
    with refused(403, "FSS.0403", f"these credentials are for project {PROJECT} only"):
        platform.client(project=OTHER).list_functions(fg.ListFunctionsRequest())
    with refused(403, "FSS.0403", "belongs to another project"):
        show(platform.client(), urn_of().replace(PROJECT, OTHER))
    with refused(403, "FSS.0403", f"these credentials are for project {OTHER} only"):
        show(platform.client("AK2", OTHER_SECRET))

    other = platform.client("AK2", OTHER_SECRET, OTHER)
    assert other.list_functions(fg.ListFunctionsRequest()).count == 0


def test_a_token_stands_in_for_a_signature(platform: Platform) -> None:
    stranger = platform.client(access="AK3")

    with_token = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN)
    wrong = stranger.async_invoke_function_invoker(invoking()).add_header("X-Auth-Token", TOKEN + "x")

    assert with_token.invoke().request_id
    with refused(401, "FSS.0401", "the access key is not one of this engine's"):
        wrong.invoke()


def test_a_presigned_authorization_is_taken_and_is_good_for_its_request_only(platform: Platform) -> None:
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of().replace(':', '%3A')}/config"
    host = f"127.0.0.1:{platform.engine.port}"
    given = sign("GET", path, {"Host": host}, b"", access="AK1", secret=SECRET, moment=time.time())
    stranger = platform.client(access="AK3")

    def presigned(invoker: Any) -> Any:
        for name, value in given.items():
            invoker.add_header(name, value)
        return invoker.invoke()

    request = fg.ShowFunctionConfigRequest(function_urn=urn_of())
    assert presigned(stranger.show_function_config_invoker(request)).func_name == "hello"
    with refused(401, "FSS.0401", "the signature does not match"):
        presigned(stranger.list_functions_invoker(fg.ListFunctionsRequest()))


@pytest.mark.parametrize(("offset", "status"), [(-880, 200), (880, 200), (-920, 401), (920, 401)])
def test_a_clock_may_be_fifteen_minutes_off(platform: Platform, offset: int, status: int) -> None:
    date = write_date(time.time() + offset)

    invoker = platform.client().show_function_config_invoker(fg.ShowFunctionConfigRequest(function_urn=urn_of()))
    invoker.add_header("X-Sdk-Date", date)

    if status == 200:
        assert invoker.invoke().func_name == "hello"
    else:
        with refused(401, "FSS.0401", "off this engine's clock: up to 900 s are allowed"):
            invoker.invoke()


@pytest.mark.parametrize(
    ("method", "path", "body", "header"),
    [
        ("POST", "hello/invocations-async", b'{"k": 2}', {}),
        ("POST", "hello/invocations-async?x=1", b'{"k": 1}', {}),
        ("POST", "default:hello/invocations-async", b'{"k": 1}', {}),
        ("POST", "hello/invocations", b'{"k": 1}', {}),
        ("POST", "hello/invocations-async", b'{"k": 1}', {"Content-Type": "application/json;a=b"}),
        ("POST", "hello/invocations-async", b'{"k": 1}', {"X-Functiond-Priority": "9"}),
        ("POST", "hello/invocations-async", b'{"k": 1}', {"X-Functiond-Delay": "9"}),
    ],
)
def test_a_raw_request_that_was_tampered_with_is_refused(
    platform: Platform, method: str, path: str, body: bytes, header: dict[str, str]
) -> None:
    functions = f"/v2/{PROJECT}/fgs/functions"
    given = signed(platform.engine, "POST", f"{functions}/hello/invocations-async", b'{"k": 1}', X_Functiond_Delay="0")

    as_it_was = platform.engine.ask("POST", f"{functions}/hello/invocations-async", b'{"k": 1}', headers=given)
    changed = platform.engine.ask(method, f"{functions}/{path}", body, headers=given | header)

    assert as_it_was.status == 202
    assert (changed.status, changed.json["error_code"]) == (401, "FSS.0401")


def signed(engine: EngineProcess, method: str, target: str, body: bytes = b"", **more: str) -> dict[str, str]:
    """Send a signed request with raw colons in the path, as curl does."""
    given = {name.replace("_", "-"): value for name, value in more.items()}
    headers = {"Host": f"127.0.0.1:{engine.port}", "Content-Type": "application/json", **given}
    return headers | sign(method, target, headers, body, access="AK1", secret=SECRET, moment=time.time())


def test_curl_with_raw_colons_and_a_token_or_signature_is_served(platform: Platform) -> None:
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of()}/config"

    by_token = platform.engine.ask("GET", path, headers={"X-Auth-Token": TOKEN})
    by_signature = platform.engine.ask("GET", path, headers=signed(platform.engine, "GET", path))
    by_nothing = platform.engine.ask("GET", path)

    assert (by_token.status, by_signature.status, by_nothing.status) == (200, 200, 401)


def test_a_proxy_on_this_machine_passes_on_signed_requests_under_its_own_name(platform: Platform) -> None:
    engine, path, token = platform.engine, f"/v2/{PROJECT}/fgs/functions", {"X-Auth-Token": TOKEN}
    proxied = {"Host": "api.example.com"}

    by_signature = engine.ask("GET", path, headers=signed(engine, "GET", path, Host="api.example.com"))
    by_token = engine.ask("GET", path, headers=token | proxied)
    by_page = engine.ask("GET", path, headers=token | proxied | {"Origin": "https://api.example.com"})
    by_nothing = engine.ask("GET", path, headers=proxied)
    by_foreign_page = engine.ask("GET", path, headers=token | proxied | {"Origin": "https://evil.example"})

    assert [one.status for one in (by_signature, by_token, by_page)] == [200, 200, 200]
    assert [one.status for one in (by_nothing, by_foreign_page)] == [401, 403]


def test_a_proxy_on_this_machine_passes_on_webhooks(platform: Platform) -> None:
    engine, token = platform.engine, {"X-Auth-Token": TOKEN}
    options = {"name": "pushes", "secret": "16-characters-or-more", "scheme": "github"}
    body = {"trigger_type_code": "WEBHOOK", "event_data": options}
    made = engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of()}", body, headers=token)
    path, proxied = f"/triggers/webhook/{made.json['trigger_id']}", {"Host": "hooks.example.com"}
    signature = "sha256=" + hmac.digest(options["secret"].encode(), b"{}", "sha256").hex()

    pushed = engine.ask("POST", path, b"{}", headers=proxied | {"X-Hub-Signature-256": signature})
    unsigned = engine.ask("POST", path, b"{}", headers=proxied)

    assert (pushed.status, unsigned.status) == (202, 401)


def test_health_is_open_and_figures_are_not(platform: Platform) -> None:
    bare = platform.engine.ask("GET", "/readyz")
    full = platform.engine.ask("GET", "/readyz", headers={"X-Auth-Token": TOKEN})

    assert platform.engine.ask("GET", "/healthz").status == 200
    assert (bare.status, bare.json) == (200, {"status": "ready"})
    assert (full.json["status"], "isolation" in full.json) == ("ready", True)
    assert platform.engine.ask("GET", "/metrics").status == 401
    assert platform.engine.ask("GET", "/metrics", headers={"X-Auth-Token": TOKEN}).status == 200


def test_secrets_reach_neither_the_log_nor_a_child(platform: Platform) -> None:
    client = platform.client()
    create(client, "spy", SPY)
    secrets = (SECRET, OTHER_SECRET, TOKEN, SECURITY)
    with refused(401, "FSS.0401", ""):
        show(platform.client(secret=OTHER_SECRET))

    seen = client.invoke_function(fg.InvokeFunctionRequest(function_urn=urn_of("spy"), body={})).raw_content.decode()
    logged = "".join(platform.engine.log)

    assert "RUNTIME_PROJECT_ID" in seen
    assert '"not authenticated"' in logged
    assert not [secret for secret in secrets if secret in seen + logged]
    assert "credentials" not in seen  # not even the path of the credentials file


def test_valid_proof_passes_whatever_failed_before(tmp_path: Path) -> None:
    settings = {"FUNCTIOND_AUTH__FILE": str(credentials_file(tmp_path)), "FUNCTIOND_AUTH__FAILURES": "3"}
    with engine_on(tmp_path / "data", **settings) as engine:
        path = f"/v2/{PROJECT}/fgs/functions"
        tries = [engine.ask("GET", path, headers={"X-Auth-Token": "x" * 16}) for _ in range(5)]

        assert [one.status for one in tries] == [401] * 5
        assert engine.ask("GET", path, headers={"X-Auth-Token": TOKEN}).status == 200
        assert engine.ask("GET", path, headers=signed(engine, "GET", path)).status == 200


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
    done = functiond("settings", environ={"FUNCTIOND_AUTH__FILE": str(credentials_file(tmp_path))})

    assert "auth.file" in done.stdout
    assert not [secret for secret in (SECRET, TOKEN, SECURITY) if secret in done.stdout]
