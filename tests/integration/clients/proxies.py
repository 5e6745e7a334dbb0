"""Reverse proxies in processes of their own, in front of one upstream server.

Each proxy has one port for each of its modes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.ports import free_ports
from tests.support.programs import program

MAX_WAIT = 60.0  #: seconds after which a start has failed

#: Lines of an nginx location by mode. HTTP/1.0 with ``Connection: close`` is the default.
NGINX = {
    "default": "",
    "keep-alive": 'proxy_http_version 1.1; proxy_set_header Connection "";',
    "unbuffered": "proxy_request_buffering off;",
    "unbuffered keep-alive": 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;',
    "websocket": """proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade; proxy_set_header Host $host;""",
    "always upgrading": """proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";""",
}
HAPROXY = ("http-keep-alive", "http-server-close", "httpclose")  #: options, each a mode


class Proxies:
    """Proxies in front of one upstream server, each started when the URL of one of its modes is first asked for."""

    def __init__(self, folder: Path, upstream: str, stack: ExitStack) -> None:
        self._folder, self._upstream, self._stack = folder, upstream, stack
        self._urls: dict[str, str] = {}

    def url(self, mode: str) -> str:
        """Return the URL of a mode such as ``nginx default``; skip the test if the proxy is not installed."""
        if mode not in self._urls:
            name = mode.partition(" ")[0]
            folder = self._folder / name
            folder.mkdir(exist_ok=True)
            self._urls |= self._stack.enter_context(START[name](folder, self._upstream))
        return self._urls[mode]


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[dict[str, str]]:
    """Run nginx; yield the URL of each mode."""
    ports = free_ports(len(NGINX))
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engine; {lines} }} }}\n"
        for port, lines in zip(ports, NGINX.values(), strict=True)
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log stderr error;
        events {{ }}
        http {{
            access_log off; client_max_body_size 10m; {temporary}
            map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
            upstream engine {{ server {urlsplit(upstream).netloc}; keepalive 8; }}
            {servers}
        }}"""
    )
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with running(command, folder, ports):
        yield _urls("nginx", NGINX, ports)


@contextmanager
def haproxy(folder: Path, upstream: str) -> Iterator[dict[str, str]]:
    """Run haproxy; yield the URL of each mode."""
    ports = free_ports(len(HAPROXY))
    lines = ["defaults", "mode http", "timeout connect 10s", "timeout client 30s", "timeout server 30s"]
    for port, option in zip(ports, HAPROXY, strict=True):
        server = f"server engine {urlsplit(upstream).netloc}"
        lines += [f"listen {option}", f"bind 127.0.0.1:{port}", f"option {option}", server]
    (folder / "haproxy.cfg").write_text("\n".join([*lines, ""]))
    with running(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], folder, ports):
        yield _urls("haproxy", HAPROXY, ports)


@contextmanager
def caddy(folder: Path, upstream: str) -> Iterator[dict[str, str]]:
    """Run Caddy; yield its URL."""
    [port] = free_ports(1)
    options = "{\n admin off\n auto_https off\n}\n"
    site = f"http://127.0.0.1:{port} {{\n bind 127.0.0.1\n reverse_proxy {urlsplit(upstream).netloc}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, folder, [port]):
        yield _urls("caddy", ["default"], [port])


Start = Callable[[Path, str], AbstractContextManager[dict[str, str]]]
START: dict[str, Start] = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}
MODES = (*(f"nginx {mode}" for mode in NGINX), *(f"haproxy {mode}" for mode in HAPROXY), "caddy default")


def _urls(name: str, modes: Sequence[str] | Mapping[str, str], ports: Sequence[int]) -> dict[str, str]:
    return {f"{name} {mode}": f"http://127.0.0.1:{port}" for mode, port in zip(modes, ports, strict=True)}


@contextmanager
def running(command: Sequence[str], folder: Path, ports: Sequence[int]) -> Iterator[None]:
    """Run a server until the block ends; skip the test if its program is not installed."""
    path = program(command[0])
    output = folder / "output"
    # Caddy keeps its state in the home directory.
    environment = {**os.environ, "HOME": str(folder)}
    environment |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (
        output.open("wb") as log,
        subprocess.Popen([path, *command[1:]], stdout=log, stderr=log, env=environment) as server,
    ):
        try:
            until = time.monotonic() + MAX_WAIT
            while not all(map(_listens, ports)):
                running = server.poll() is None and time.monotonic() < until
                assert running, f"{path} did not start: {output.read_text()[-2000:]}"
                time.sleep(0.02)
            yield
        finally:
            server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
