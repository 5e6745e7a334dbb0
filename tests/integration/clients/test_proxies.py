"""Reverse proxies in front of a listener: bodies of 0 to 6 MiB arrive whole, and no refusal is lost."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.clients.echo import BODIES, DIGESTS, MAX_WAIT, REFUSED, SIZES, echo_server, printed
from tests.integration.clients.proxies import MODES, Proxies
from tests.support.programs import program

STATUSES = [401, 404, 413, 429] * 5
UPLOAD = bytes(3 << 20)
PIECE = 16_000  #: bytes of a chunk
#: Modes that pass a large chunked body on as it arrives. The others store it and send its length.
STREAMING = ("nginx unbuffered keep-alive", "haproxy", "caddy")
#: Modes that pass on a request to switch to WebSocket.
SWITCHING = ("nginx websocket", "nginx always upgrading", "haproxy http-keep-alive", "caddy default")
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
#: Headers of Java's HTTP client in its default version HTTP/2.
HTTP_2 = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
}


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    with echo_server() as upstream, ExitStack() as stack:
        yield Proxies(tmp_path_factory.mktemp("proxies"), upstream, stack)


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=MAX_WAIT)


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[at : at + PIECE] for at in range(0, len(body), PIECE))


def _answer(connection: http.client.HTTPConnection) -> str:
    with connection.getresponse() as response:
        return f"{response.read().decode()} {response.status}"


@pytest.mark.parametrize("mode", MODES)
def test_bodies_arrive_whole_through_a_proxy(proxies: Proxies, mode: str) -> None:
    received, framings = [], []
    with closing(_connect(proxies.url(mode))) as connection:
        for body in BODIES.values():
            for sent in (body, _pieces(body)):  # an iterator is sent in chunks
                connection.request("POST", "/upload", sent)
                _, framing, *rest = _answer(connection).split()
                framings.append(framing)
                received.append(rest)

    assert received == [[f"{size}", DIGESTS[size], "200"] for size in BODIES for _ in range(2)]
    assert framings[-2:] == ["length", "chunked" if mode.startswith(STREAMING) else "length"]


@pytest.mark.parametrize("mode", MODES)
def test_refusals_on_a_kept_connection_reach_the_client_of_a_proxy(proxies: Proxies, mode: str, tmp_path: Path) -> None:
    url = proxies.url(mode)
    upload = tmp_path / "upload"
    upload.write_bytes(UPLOAD)

    command = [program("curl"), "-sS", "-m", f"{MAX_WAIT}", "-w", " %{http_code}\n", "-H", "Expect:", "--data-binary"]
    lines = printed([*command, f"@{upload}", *(f"{url}{REFUSED}{status}" for status in STATUSES)])
    assert lines == [f"refused {status}" for status in STATUSES]


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])
@pytest.mark.parametrize("mode", MODES)
def test_refusals_on_a_closed_connection_reach_the_client_of_a_proxy(
    proxies: Proxies, mode: str, chunked: bool
) -> None:
    url = proxies.url(mode)

    lines = []
    for status in STATUSES:
        with closing(_connect(url)) as connection:
            body = _pieces(UPLOAD) if chunked else UPLOAD
            with suppress(BrokenPipeError):  # of a proxy that waits for the rest no longer; the refusal has come before
                connection.request("POST", f"{REFUSED}{status}", body, {"Connection": "close"})
            lines.append(_answer(connection))
    assert lines == [f"refused {status}" for status in STATUSES]


@pytest.mark.parametrize("mode", SWITCHING)
@pytest.mark.parametrize(
    ("method", "body", "headers", "words", "status"),
    [
        ("GET", None, WEBSOCKET, "WebSocket", 501),
        ("POST", BODIES[SIZES[-1]], HTTP_2, f"POST length {SIZES[-1]} {DIGESTS[SIZES[-1]]}", 200),
    ],
    ids=["WebSocket is refused", "HTTP/2 is not spoken"],
)
def test_no_protocol_is_switched_through_a_proxy(
    proxies: Proxies, mode: str, method: str, body: bytes | None, headers: dict[str, str], words: str, status: int
) -> None:
    with closing(_connect(proxies.url(mode))) as connection:
        connection.request(method, "/path", body, headers)
        answer = _answer(connection)
        connection.request("POST", "/next", BODIES[1])
        after = _answer(connection)

    assert words in answer
    assert answer.endswith(f" {status}")
    assert after == f"POST length 1 {DIGESTS[1]} 200"
