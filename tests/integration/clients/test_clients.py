"""Uploads of foreign HTTP clients: hashes of bodies of 0 to 6 MiB, and refusals while a body is still sent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec import Struct

from tests.integration.clients.echo import MAX_WAIT, SIZES, answered, echo_server, printed, write_bodies
from tests.support.programs import program

PROGRAMS = Path(__file__).parent / "programs"
PYTHON, DEBIAN = sys.executable, "/usr/bin/python3"  #: with clients from PyPI, and with those from Debian
LARGEST = SIZES[-1]
GET = answered("GET", 0, "none", "GET")
AFTER = answered("after", 0, "none", "GET")
READ_FIRST = answered("chunked 0", 0, "length")  #: of a client that reads an empty stream before it sends the head
#: Refusals that keep the connection if the listener does, and refusals of requests that close it.
KEPT = ["kept plain refused 401", "kept chunked refused 404"]
CLOSED = ["closed plain refused 413", "closed chunked refused 429"]

#: Clients that send the same requests: program, script and options.
CLIENTS = {
    "Node": ("node", "node_clients.mjs", "core"),
    "Node with an agent": ("node", "node_clients.mjs", "agent"),
    "fetch of Node": ("node", "node_clients.mjs", "fetch"),
    "Ruby": ("ruby", "net_http.rb"),
    "LWP": ("perl", "lwp.pl"),
    "Java": ("java", "Uploads.java"),
    "http.client": (PYTHON, "python_clients.py", "http.client"),
    "urllib": (PYTHON, "python_clients.py", "urllib"),
    "requests": (PYTHON, "python_clients.py", "requests"),
    "httpx": (PYTHON, "python_clients.py", "httpx"),
    "urllib3": (PYTHON, "python_clients.py", "urllib3"),
    "aiohttp": (PYTHON, "python_clients.py", "aiohttp"),
    "Debian's requests": (DEBIAN, "python_clients.py", "requests"),
    "Debian's httplib2": (DEBIAN, "python_clients.py", "httplib2"),
    "Debian's pycurl": (DEBIAN, "python_clients.py", "pycurl"),
}
PACKAGES = ("undici@7.30.2", "axios@1.21.1", "got@14.6.6")  #: of npm
#: Commands that fail if a client is not installed.
PROBES = {
    "LWP": ("perl", "-MLWP", "-e1"),
    "Debian's requests": (DEBIAN, "-Ic", "import requests"),
    "Debian's httplib2": (DEBIAN, "-Ic", "import httplib2"),
    "Debian's pycurl": (DEBIAN, "-Ic", "import pycurl"),
}


class Rig(Struct):
    """Listener, and the files of the bodies."""

    url: str
    files: Sequence[Path]

    def lines(
        self, interpreter: str, script: str, *options: str, needs: str = "", cwd: Path | None = None
    ) -> list[str]:
        """Run a script; skip the test if its interpreter, or the program that it needs, is not installed."""
        program(needs or interpreter)
        isolated = ["-I"] if script.endswith(".py") else []
        return printed([program(interpreter), *isolated, PROGRAMS / script, *options, self.url, *self.files], cwd=cwd)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with echo_server() as url:
        yield Rig(url=url, files=write_bodies(tmp_path_factory.mktemp("bodies")))


def _bodies(*framings: str) -> list[str]:
    """Return the lines of one upload of each size in each of these framings."""
    return [answered(f"{framing} {size}", size, _header(framing)) for size in SIZES for framing in framings]


def _header(framing: str) -> str:
    return "chunked" if framing == "chunked" else "length"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sends_whole_bodies_and_sees_refusals(rig: Rig, name: str) -> None:
    probe = PROBES.get(name)
    if probe and subprocess.run([program(probe[0]), *probe[1:]], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {name} on this machine")

    bodies = _bodies("plain", "chunked")
    if name == "LWP":
        bodies.remove(answered("chunked 0", 0, "chunked"))  # see lwp.pl
    if name == "fetch of Node":
        bodies[1] = READ_FIRST
    lines = rig.lines(*CLIENTS[name])
    if name == "Java":  # JDK 17 sends Content-Length: 0 with a GET, later ones send no length
        lines = [line.replace(" GET length 0 ", " GET none 0 ") for line in lines]
    assert lines == [GET, *bodies, *KEPT, *CLOSED, AFTER]


def test_packages_of_npm_send_whole_bodies_and_see_refusals(rig: Rig, tmp_path: Path) -> None:
    _install(tmp_path)

    for package in PACKAGES:
        client = package.partition("@")[0]
        first, _, *others = _bodies("plain", "chunked")
        lines = rig.lines("node", "node_clients.mjs", client, cwd=tmp_path)
        assert lines == [GET, first, READ_FIRST, *others, *KEPT, *CLOSED, AFTER], client


def _install(folder: Path) -> None:
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    command = [program("npm"), "install", *options, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_WAIT, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {', '.join(PACKAGES)}: {done.stderr[-500:]}")


def test_curl_sends_whole_bodies_and_sees_refusals(rig: Rig) -> None:
    refusals = [
        *KEPT,
        *CLOSED,
        "unexpecting plain refused 413",
        "unexpecting chunked refused 429",
        "old plain refused 404",
        "twice refused 401",
        answered("twice", LARGEST),
    ]
    connections = [answered("reused", LARGEST) + f" {new}" for new in (1, 0, 0)]

    bodies = _bodies("plain", "chunked", "expecting", "old", "upgrading")
    assert rig.lines("sh", "curl.sh", needs="curl") == [GET, *bodies, *connections, *refusals]


def test_wget_sends_whole_bodies_and_sees_refusals(rig: Rig) -> None:
    refusals = ["kept plain refused 404", "closed plain refused 413"]

    assert rig.lines("sh", "wget.sh", needs="wget") == [GET, *_bodies("plain"), *refusals]
