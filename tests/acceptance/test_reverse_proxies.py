"""The documented configurations of nginx and Caddy: time, sizes, and events that arrive at once."""

from __future__ import annotations

import json
import re
import ssl
import time
import tomllib
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from msgspec import Struct

from engine.config.settings import Settings
from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on
from tests.acceptance.test_nginx import NAME, TOKEN, nginx, nginx_server
from tests.integration.clients.proxies import running
from tests.support.certificates import write_certificate
from tests.support.documents import DOCS, block
from tests.support.ports import free_port

CLIENT = "127.0.0.7"
DEADLINE = 60.0  #: seconds; only a failing test takes so long
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
        """Send a request from ``CLIENT`` over TLS. Underscores in header names stand for dashes."""
        context = ssl._create_unverified_context()
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context, source_address=(CLIENT, 0))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": f"{NAME}:{self.port}", "X-Auth-Token": TOKEN, **named})
        return connection


def _nginx_command(port: int, upstream: int, folder: Path) -> list[str]:
    documented = block(DOCS / "security.md", "nginx", "proxy_pass")
    return nginx(folder, [nginx_server(documented, port, upstream, folder)])


def _caddy_command(port: int, upstream: int, folder: Path) -> list[str]:
    documented = block(DOCS / "running.md", "caddy", "reverse_proxy").replace(":8080", f":{upstream}")
    # The certificate of the test in place of one that Caddy gets by ACME.
    address = f"https://:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/cert.pem {folder}/key.pem\n"
    site = documented.replace("api.example.com {\n", address)
    options = f"{{\n\tadmin off\n\tauto_https off\n\tdefault_sni {NAME}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


COMMANDS = {"nginx": _nginx_command, "caddy": _caddy_command}


@pytest.fixture(scope="module", params=list(COMMANDS))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    write_certificate(folder)
    file = folder / "credentials.toml"
    file.write_text(f'[[tokens]]\ntoken = "{TOKEN}"\nproject = "{PROJECT}"\n')
    file.chmod(0o600)
    trusted = tomllib.loads(block(DOCS / "running.md", "toml", "trusted_proxies"))["http"]["trusted_proxies"]
    settings = {"FUNCTIOND_AUTH__FILE": str(file), "FUNCTIOND_HTTP__TRUSTED_PROXIES": ",".join(trusted)}
    with engine_on(folder / "data", **settings) as engine:
        engine.headers["X-Auth-Token"] = TOKEN
        port = free_port()
        with running(COMMANDS[request.param](port, engine.port, folder), folder, [port]):
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


def test_the_client_and_its_scheme_are_told_and_not_what_it_claims(site: Site) -> None:
    site.engine.log.clear()
    statuses = []
    for origin in (f"https://{NAME}:{site.port}", f"http://{NAME}:{site.port}"):
        connection = site.open("GET", BASE, Origin=origin, X_Forwarded_For="203.0.113.1", X_Forwarded_Proto="http")
        statuses.append(connection.getresponse().status)
        connection.close()
    connection = site.open("GET", BASE, X_Auth_Token="a-wrong-token-of-a-client", X_Forwarded_For="203.0.113.1")
    statuses.append(connection.getresponse().status)
    connection.close()
    until = time.monotonic() + DEADLINE
    while not (failed := failures(site.engine)) and time.monotonic() < until:
        time.sleep(0.01)

    assert statuses == [200, 403, 401]
    assert [line["client"] for line in failed] == [CLIENT]


def failures(engine: EngineProcess) -> list[dict[str, str]]:
    return [line for line in map(json.loads, list(engine.log)) if line["event"] == "not authenticated"]


def test_nginx_waits_longer_than_synchronous_calls_take() -> None:
    found = re.search(r"proxy_read_timeout (\d+)s;", block(DOCS / "security.md", "nginx", "proxy_pass"))

    assert found
    assert int(found[1]) > Settings().http.sync_timeout
