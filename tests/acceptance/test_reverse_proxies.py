"""The documented configurations of nginx and Caddy, in front of an engine that trusts them."""

from __future__ import annotations

import json
import re
import ssl
import tomllib
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest
from msgspec import Struct

from engine.config.settings import Settings
from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, until
from tests.integration.clients.proxies import running
from tests.support.certificates import write_certificate
from tests.support.credentials import credentials_file, key, token
from tests.support.documents import DOCS, block
from tests.support.ports import free_port

NAME = "api.example.com"
CLIENT = "127.0.0.7"
TOKEN = "sixteen-characters-or-more"
#: Function that writes a line, and returns when the file ``gate`` appears.
TALKS = """
import os, time

def handler(event, context):
    print("before the gate", flush=True)
    while not os.path.exists(event["gate"]):
        time.sleep(0.02)
    return "ended"
"""


class Site(Struct):
    engine: EngineProcess
    port: int

    def open(self, method: str, path: str, body: bytes | None = None, **headers: str) -> HTTPSConnection:
        """Send a request from ``CLIENT`` over TLS; underscores in names are dashes, empty headers are not sent."""
        context = ssl._create_unverified_context()
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context, source_address=(CLIENT, 0))
        given = {"Host": f"{NAME}:{self.port}", "X_Auth_Token": TOKEN, **headers}
        named = {name.replace("_", "-"): value for name, value in given.items() if value}
        connection.request(method, path, body, named)
        return connection

    def status(self, method: str, path: str, **headers: str) -> int:
        connection = self.open(method, path, None, **headers)
        try:
            return connection.getresponse().status
        finally:
            connection.close()


def _nginx_command(port: int, upstream: int, folder: Path, *, without: str = "") -> list[str]:
    """Return the command that runs nginx with the documented configuration, ports and files of a test."""
    text = block(DOCS / "security.md", "nginx", "proxy_pass")
    if without:
        text, lines = re.subn(f".*{without}.*\n", "", text)
        assert lines
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace(":8080", f":{upstream}")
    text = re.sub(r"/etc/ssl/certs/[\w.]+", str(folder / "cert.pem"), text)
    text = re.sub(r"/etc/ssl/private/[\w.]+", str(folder / "key.pem"), text)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr error;\nevents {{ }}\n"
        f"http {{ access_log off; {temporary}\n{text}}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _nginx_command_without_host(port: int, upstream: int, folder: Path) -> list[str]:
    return _nginx_command(port, upstream, folder, without="proxy_set_header Host ")


def _caddy_command(port: int, upstream: int, folder: Path) -> list[str]:
    documented = block(DOCS / "running.md", "caddy", "reverse_proxy").replace(":8080", f":{upstream}")
    # The certificate of the test in place of one that Caddy gets by ACME.
    address = f"https://:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/cert.pem {folder}/key.pem\n"
    site = documented.replace("api.example.com {\n", address)
    options = f"{{\n\tadmin off\n\tauto_https off\n\tdefault_sni {NAME}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


#: Command of a proxy, and the document with the setting that trusts it.
PROXIES: dict[str, tuple[Callable[[int, int, Path], list[str]], str]] = {
    "nginx": (_nginx_command, "security.md"),
    "nginx without Host": (_nginx_command_without_host, "security.md"),
    "caddy": (_caddy_command, "running.md"),
}


@pytest.fixture(scope="module", params=PROXIES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("proxied")
    command, document = PROXIES[request.param]
    write_certificate(folder)
    trusted = tomllib.loads(block(DOCS / document, "toml", "trusted_proxies"))["http"]["trusted_proxies"]
    settings = credentials_file(folder, token(TOKEN, PROJECT), key("AK1", TOKEN, PROJECT))
    settings |= {"FUNCTIOND_HTTP__TRUSTED_PROXIES": ",".join(trusted)}
    with engine_on(folder / "data", **settings) as engine:
        engine.headers["X-Auth-Token"] = TOKEN
        port = free_port()
        with running(command(port, engine.port, folder), folder, [port]):
            yield Site(engine, port)


def test_events_arrive_while_the_function_runs(site: Site, tmp_path: Path) -> None:
    site.engine.create("talks", TALKS)
    request_id = site.engine.accepted("talks", {"gate": str(tmp_path / "gate")})
    path = f"{BASE}/talks/async-invocations/{request_id}/logs"
    connection = site.open("GET", path, Accept="text/event-stream")
    response = connection.getresponse()

    lines = iter(response.readline, b"")
    seen = next(line for line in lines if b"before the gate" in line)
    (tmp_path / "gate").touch()

    assert seen.startswith(b"data:")
    assert [line for line in lines if line.startswith(b"event:")][-1:] == [b"event: end\n"]
    connection.close()


def test_a_large_package_reaches_the_engine(site: Site) -> None:
    body = b'{"func_code": {"file": "%b"}}' % (b"A" * (67 << 20))
    connection = site.open("POST", BASE, body, Content_Type="application/json")
    response = connection.getresponse()
    reply = json.loads(response.read())
    connection.close()

    assert reply["error_code"].startswith("FSS.")  # of the engine


def test_the_client_its_name_and_its_scheme_are_told_and_not_what_it_claims(site: Site) -> None:
    site.engine.log.clear()
    origins = (f"https://{NAME}:{site.port}", f"http://{NAME}:{site.port}", "https://evil.example")
    claims = {"X_Forwarded_For": "203.0.113.1", "X_Forwarded_Proto": "http", "X_Forwarded_Host": "evil.example"}
    statuses = [site.status("GET", BASE, Origin=origin, **claims) for origin in origins]
    unknown = site.status("GET", BASE, X_Auth_Token="a-wrong-token-of-a-client", **claims)
    failed = until(lambda: failures(site.engine))

    assert (statuses, unknown) == ([200, 403, 403], 401)
    assert [line["client"] for line in failed] == [CLIENT]


def failures(engine: EngineProcess) -> list[dict[str, str]]:
    return [line for line in map(json.loads, list(engine.log)) if line["event"] == "not authenticated"]


def test_a_secret_key_signs_in_to_the_console_behind_https(site: Site) -> None:
    form = urlencode({"kind": "key", "access": "AK1", "secret": TOKEN}).encode()
    sent = {"Origin": f"https://{NAME}:{site.port}", "Content_Type": "application/x-www-form-urlencoded"}
    connection = site.open("POST", "/console/sign-in", form, X_Auth_Token="", **sent)
    response = connection.getresponse()
    cookie = response.getheader("Set-Cookie", "")
    connection.close()

    assert (response.status, cookie[-8:]) == (303, "; Secure")
    assert site.status("GET", "/console/", X_Auth_Token="", Cookie=cookie.partition(";")[0]) == 200


def test_nginx_waits_longer_than_synchronous_calls_take() -> None:
    match = re.search(r"proxy_read_timeout (\d+)s;", block(DOCS / "security.md", "nginx", "proxy_pass"))

    assert match
    assert int(match[1]) > Settings().http.sync_timeout
