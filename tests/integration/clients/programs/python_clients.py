"""Uploads of Python's clients: python_clients.py CLIENT URL FILE...; the last file is refused."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PIECE = 16_000  #: bytes
Headers = dict[str, str]
#: Sends one request and returns the text and the status of the answer. A body that is an iterator is sent in chunks.
Send = Callable[[str, str, "bytes | Iterator[bytes] | None", Headers], tuple[str, int]]


def standard_http(url: str) -> Send:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            return response.read().decode(), response.status

    return send


def standard_urllib(url: str) -> Send:
    def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
        request = urllib.request.Request(url + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.read().decode(), response.status
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.read().decode(), answer.code

    return send


def with_sessions(library: str, session: str, body_name: str, **options: Any) -> Callable[[str], Send]:
    """Return the client of a library whose sessions have a method ``request``."""

    def connect(url: str) -> Send:
        opened: Any = getattr(importlib.import_module(library), session)(**options)

        def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
            answer = opened.request(method, url + path, headers=headers, timeout=60, **{body_name: body})
            if library == "urllib3":
                return answer.data.decode(), answer.status
            return answer.text, answer.status_code

        return send

    return connect


def aiohttp(url: str) -> Send:
    runner = asyncio.Runner()

    async def open_session() -> Any:
        return importlib.import_module("aiohttp").ClientSession()

    session = runner.run(open_session())

    async def request(method: str, path: str, body: Any, headers: Headers) -> tuple[str, int]:
        data = _async(body) if isinstance(body, Iterator) else body
        async with session.request(method, url + path, data=data, headers=headers) as answer:
            return await answer.text(), answer.status

    def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
        return runner.run(request(method, path, body, headers))

    return send


def httplib2(url: str) -> Send:
    client: Any = importlib.import_module("httplib2").Http(timeout=60)

    def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
        answer, text = client.request(url + path, method, body, headers)
        return text.decode(), answer.status

    return send


def pycurl(url: str) -> Send:
    library: Any = importlib.import_module("pycurl")
    handle = library.Curl()

    def send(method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Headers) -> tuple[str, int]:
        handle.reset()
        handle.setopt(library.URL, url + path)
        if isinstance(body, Iterator):
            handle.setopt(library.POST, True)
            handle.setopt(library.READFUNCTION, lambda size: next(body, b""))
            headers = {**headers, "Transfer-Encoding": "chunked"}
        elif body is not None:
            handle.setopt(library.POSTFIELDS, body)
        handle.setopt(library.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
        return handle.perform_rs(), handle.getinfo(library.RESPONSE_CODE)

    return send


async def _async(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def pieces(body: bytes) -> Iterator[bytes]:
    return (body[at : at + PIECE] for at in range(0, len(body), PIECE))


CLIENTS = {
    "http.client": standard_http,
    "urllib": standard_urllib,
    "requests": with_sessions("requests", "Session", "data"),
    "httpx": with_sessions("httpx", "Client", "content"),
    "urllib3": with_sessions("urllib3", "PoolManager", "body", retries=False),
    "aiohttp": aiohttp,
    "httplib2": httplib2,
    "pycurl": pycurl,
}


def main(client: str, url: str, *files: str) -> None:
    send = CLIENTS[client](url)

    def say(label: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> None:
        method = "GET" if body is None else "POST"
        print(label, *send(method, path, body, headers))

    say("GET", "/get")
    body = b""
    for file in map(Path, files):
        body = file.read_bytes()
        say(f"plain {file.name}", "/plain", body)
        say(f"chunked {file.name}", "/chunked", pieces(body))
    say("kept plain", "/refused/401", body)
    say("kept chunked", "/refused/404", pieces(body))
    say("closed plain", "/refused/413", body, Connection="close")
    say("closed chunked", "/refused/429", pieces(body), Connection="close")
    say("after", "/after")


if __name__ == "__main__":
    main(*sys.argv[1:])
