"""The documented configuration of nginx, in front of an engine that trusts it."""

from __future__ import annotations

import json
import re
import ssl
import tomllib
from collections.abc import Iterator
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on
from tests.integration.clients.proxies import running
from tests.support.certificates import write_certificate
from tests.support.documents import DOCS, block
from tests.support.ports import free_ports

NAME = "api.example.com"
CLIENT = "127.0.0.5"
TOKEN = "sixteen-characters-or-more"


class Site(Struct):
    """nginx with the documented configuration, and with a second port that lacks its line for Host."""

    engine: EngineProcess
    port: int
    port_without_host: int

    def ask(self, method: str, path: str, *, port: int = 0, **headers: str) -> tuple[int, Any]:
        """Send a request with the token from ``CLIENT``. Underscores in header names stand for dashes."""
        status, _, body = self.send(
            method, path, None, port=port, X_Auth_Token=headers.pop("X_Auth_Token", TOKEN), **headers
        )
        return status, json.loads(body or b"null")

    def send(
        self, method: str, path: str, body: bytes | None = None, *, port: int = 0, **headers: str
    ) -> tuple[int, str, bytes]:
        """Send a request. Return the status of the reply, its header Set-Cookie, and its body."""
        port = port or self.port
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": f"{NAME}:{port}", **named}
        context = ssl._create_unverified_context()
        connection = HTTPSConnection("127.0.0.1", port, timeout=60, context=context, source_address=(CLIENT, 0))
        try:
            connection.request(method, path, body, headers=sent)
            response: HTTPResponse = connection.getresponse()
            return response.status, response.getheader("Set-Cookie", ""), response.read()
        finally:
            connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    write_certificate(tmp_path)
    file = tmp_path / "credentials.toml"
    key = f'[[keys]]\naccess = "AK1"\nsecret = "{TOKEN}"\nproject = "{PROJECT}"\n'
    file.write_text(f'[[tokens]]\ntoken = "{TOKEN}"\nproject = "{PROJECT}"\n{key}')
    file.chmod(0o600)
    trusted = tomllib.loads(block(DOCS / "security.md", "toml", "trusted_proxies"))["http"]["trusted_proxies"]
    settings = {"FUNCTIOND_AUTH__FILE": str(file), "FUNCTIOND_HTTP__TRUSTED_PROXIES": ",".join(trusted)}
    with engine_on(tmp_path / "data", **settings) as engine:
        ports = free_ports(2)
        documented = block(DOCS / "security.md", "nginx", "proxy_pass")
        bare = re.sub(r".*proxy_set_header Host .*\n", "", documented)
        assert bare != documented
        servers = [
            nginx_server(text, port, engine.port, tmp_path)
            for text, port in zip((documented, bare), ports, strict=True)
        ]
        with running(nginx(tmp_path, servers), tmp_path, ports):
            yield Site(engine, *ports)


def nginx_server(documented: str, port: int, upstream: int, folder: Path) -> str:
    """Return the documented configuration with ports and files of a test."""
    text = documented.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace(":8080", f":{upstream}")
    text = re.sub(r"/etc/ssl/certs/[\w.]+", str(folder / "cert.pem"), text)
    return re.sub(r"/etc/ssl/private/[\w.]+", str(folder / "key.pem"), text)


def nginx(folder: Path, servers: list[str]) -> list[str]:
    """Return the command that runs nginx with ``servers``."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr error;\nevents {{ }}\n"
        f"http {{ access_log off; {temporary}\n{''.join(servers)}}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def test_failed_logins_count_for_the_client_of_nginx(site: Site) -> None:
    status, _ = site.ask("GET", BASE, X_Auth_Token="a-wrong-token-of-a-client", X_Forwarded_For="203.0.113.1")
    site.engine.stop()

    assert status == 401
    failures = [line for line in map(json.loads, site.engine.log) if line["event"] == "not authenticated"]
    assert [line["client"] for line in failures] == [CLIENT]


def test_the_engines_own_pages_are_those_of_the_name_that_clients_use(site: Site) -> None:
    for port in (site.port, site.port_without_host):
        own, plain = f"https://{NAME}:{port}", f"http://{NAME}:{port}"
        statuses = [
            site.ask("GET", BASE, port=port, Origin=origin)[0] for origin in (own, plain, "https://evil.example")
        ]
        forged = site.ask("GET", BASE, port=port, Origin="https://evil.example", X_Forwarded_Host="evil.example")[0]

        assert (statuses, forged) == ([200, 403, 403], 403)


def test_a_secret_key_signs_in_to_the_console_behind_https(site: Site) -> None:
    form = urlencode({"kind": "key", "access": "AK1", "secret": TOKEN}).encode()
    for port in (site.port, site.port_without_host):
        origin = f"https://{NAME}:{port}"
        status, cookie, _ = site.send(
            "POST",
            "/console/sign-in",
            form,
            port=port,
            Origin=origin,
            Content_Type="application/x-www-form-urlencoded",
        )
        shown = site.send("GET", "/console/", port=port, Cookie=cookie.partition(";")[0])

        assert (status, shown[0]) == (303, 200)
        assert cookie.endswith("; Secure")
