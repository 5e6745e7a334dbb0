"""Listeners with TLS, their certificate and its reload, on both event loops."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.asgi.acceptor import Acceptor
from engine.asgi.connection import Connection
from engine.asgi.listener import listen
from engine.asgi.listener_state import ListenerState
from engine.asgi.loopback import open_sockets
from engine.asgi.tls import ServerTls
from engine.asgi.wire import Receive, Reply, Scope, Send, read_body, respond
from engine.errors import SettingsError
from tests.support.certificates import DAY, write_certificate
from tests.support.programs import needs

HOST = "127.0.0.1"
DEADLINE = 60.0  #: seconds after which a test fails; never waited for in a passing test


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with the scheme and the request's body."""
    body = await read_body(receive, dict(scope["headers"]), 1 << 30)
    await respond(scope, send, Reply(body=scope["scheme"].encode() + b" " + body))


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    write_certificate(tmp_path)
    return ServerTls(tmp_path / "cert.pem", tmp_path / "key.pem")


def certificate_in(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())


@contextmanager
def connect(port: int, folder: Path, name: str | None = HOST) -> Iterator[ssl.SSLSocket]:
    """Connect with TLS. A host name as ``name`` is sent to the server; an address, or None, is not."""
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, port), timeout=DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False) as connection,
    ):
        yield connection


def presented(port: int, folder: Path, name: str | None) -> bytes | None:
    """Return the certificate that the server presents to a new connection."""
    with connect(port, folder, name) as connection:
        return connection.getpeercert(binary_form=True)


def post(connection: ssl.SSLSocket, body: bytes = b"") -> bytes:
    """Send a request on the connection and return the body of the reply."""
    connection.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    reply = http.client.HTTPResponse(connection, method="POST")
    reply.begin()
    return reply.read()


async def test_a_client_that_trusts_the_certificate_is_answered(tls: ServerTls, tmp_path: Path) -> None:
    def ask(port: int) -> tuple[bytes, str | None, str | None]:
        context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        connection = http.client.HTTPSConnection(HOST, port, timeout=DEADLINE, context=context)
        connection.request("POST", "/", b"x" * 3_000_000)
        body = connection.getresponse().read()
        version, protocol = connection.sock.version(), connection.sock.selected_alpn_protocol()
        connection.close()
        return body, version, protocol

    async with listen(app, HOST, 0, tls=tls) as port:
        body, version, protocol = await asyncio.to_thread(ask, port)
        assert body == b"https " + b"x" * 3_000_000
        assert version in ("TLSv1.2", "TLSv1.3")
        assert protocol == "http/1.1"


@pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
async def test_a_refusal_arrives_while_the_body_is_sent(tls: ServerTls, tmp_path: Path, connection: bytes) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply(status=413, body=b"refused"))

    def upload(port: int) -> tuple[int, bytes]:
        with connect(port, tmp_path) as client:
            client.sendall(
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\nConnection: %b\r\n\r\n" % connection
            )
            client.sendall(b"x" * 3_000_000)
            reply = http.client.HTTPResponse(client, method="POST")
            reply.begin()
            return reply.status, reply.read()

    async with listen(refuse, HOST, 0, tls=tls) as port:
        replies = [await asyncio.to_thread(upload, port) for _ in range(20)]
        assert replies == [(413, b"refused")] * 20


@pytest.mark.parametrize("name", ["localhost", HOST, None])
async def test_a_reloaded_certificate_holds_for_new_connections(
    tls: ServerTls, tmp_path: Path, name: str | None
) -> None:
    def drive(port: int) -> None:
        old = certificate_in(tmp_path)
        with connect(port, tmp_path, name) as earlier:
            before = presented(port, tmp_path, name)
            write_certificate(tmp_path)
            tls.reload()
            after = presented(port, tmp_path, name)
            assert (before, after) == (old, certificate_in(tmp_path))
            assert old != after
            assert post(earlier, b"still") == b"https still"

    async with listen(app, HOST, 0, tls=tls) as port:
        await asyncio.to_thread(drive, port)


def break_key(folder: Path) -> None:
    (folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")


def expire(folder: Path) -> None:
    write_certificate(folder, begin=-2 * DAY, end=-DAY)


@pytest.mark.parametrize(
    ("spoil", "problem"), [(break_key, "cannot use"), (expire, "expired at")], ids=["broken", "expired"]
)
async def test_a_certificate_that_cannot_be_used_leaves_the_old_one_in_use(
    tls: ServerTls, tmp_path: Path, spoil: Callable[[Path], None], problem: str
) -> None:
    old = certificate_in(tmp_path)
    async with listen(app, HOST, 0, tls=tls) as port:
        spoil(tmp_path)
        with pytest.raises(SettingsError, match=problem):
            tls.reload()
        assert await asyncio.to_thread(presented, port, tmp_path, "localhost") == old


async def test_unfinished_handshakes_do_not_delay_the_end(tls: ServerTls, tmp_path: Path) -> None:
    moment = asyncio.get_running_loop().time
    async with listen(app, HOST, 0, grace=0.0, tls=tls) as port:
        _, writer = await asyncio.open_connection(HOST, port)
        # The reply to another client shows that the earlier connection was accepted.
        assert await asyncio.to_thread(presented, port, tmp_path, None)
        began = moment()
    assert moment() - began < 5  # the handshake may take 10
    writer.close()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\0" * 20])
async def test_a_client_without_tls_is_disconnected_quietly_with_a_hint_for_http(
    tls: ServerTls, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with caplog.at_level(logging.WARNING):
        async with listen(app, HOST, 0, tls=tls) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(sent)
            answer = await reader.read()
            writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ") == (b"use https://" in answer) == sent.startswith(b"GET")
    assert caplog.records == []


def test_every_cipher_has_keys_of_its_own_for_each_connection(tls: ServerTls) -> None:
    tls.reload()

    for context in (tls.context, tls._selector.current):
        assert {cipher["kea"] for cipher in context.get_ciphers()} == {"kx-any", "kx-ecdhe"}  # kx-any: of TLS 1.3


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    write_certificate(tmp_path / "other")
    (tmp_path / "empty.pem").write_text("")
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other" / "key.pem"

    assert problem_of(tmp_path / "none.pem", key) == (
        f"cannot read http.tls_certificate {tmp_path}/none.pem (No such file or directory); "
        "name a file that the engine may read"
    )
    assert problem_of(cert, tmp_path).startswith(f"cannot read http.tls_key {tmp_path} (Is a directory); ")
    assert problem_of(tmp_path / "empty.pem", key).startswith(f"http.tls_certificate {tmp_path}/empty.pem holds no ")
    assert problem_of(cert, cert).startswith(f"http.tls_key {cert} holds no line -----BEGIN … PRIVATE KEY-----; ")
    assert problem_of(cert, other) == (
        f"cannot use the certificate {cert} with the key {other} (key values mismatch); name PEM files that belong "
        "together by http.tls_certificate and http.tls_key"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    write_certificate(tmp_path)
    key = tmp_path / "key.pem"
    key.chmod(mode)

    assert problem_of(tmp_path / "cert.pem", key) == (
        f"http.tls_key {key} is a secret and others have access (mode {mode:04o}): chmod 600 {key}"
    )


EXPIRED, LATER = ("expired at", "renew the certificate"), ("is not valid before", "check this machine's clock")


@pytest.mark.parametrize(
    ("begin", "limit", "words"),
    [(-400 * DAY, DAY, EXPIRED), (-20_000 * DAY, DAY, EXPIRED), (DAY, 0 * DAY, LATER), (30_000 * DAY, 0 * DAY, LATER)],
    ids=["expired in this century", "expired in the last one", "valid later in this century", "valid in the next one"],
)
def test_a_certificate_is_refused_outside_its_validity(
    tmp_path: Path, begin: timedelta, limit: timedelta, words: tuple[str, str]
) -> None:
    write_certificate(tmp_path, begin=begin, end=begin + DAY)

    problem = problem_of(tmp_path / "cert.pem", tmp_path / "key.pem")
    moment = f"{datetime.now(UTC) + begin + limit:%Y-%m-%d}"
    assert problem.startswith(f"http.tls_certificate {tmp_path}/cert.pem {words[0]} {moment} ")
    assert problem.endswith(f" UTC; {words[1]}")


def test_the_validity_of_the_first_certificate_counts(tmp_path: Path) -> None:
    """Clients do not need every issuer's certificate that a file holds."""
    (tmp_path / "old").mkdir()
    write_certificate(tmp_path / "old", begin=-2 * DAY, end=-DAY)
    write_certificate(tmp_path)
    chain = tmp_path / "chain.pem"
    chain.write_text((tmp_path / "cert.pem").read_text() + (tmp_path / "old" / "cert.pem").read_text())

    assert ServerTls(chain, tmp_path / "key.pem").context.get_ca_certs() == []


async def test_a_lost_connection_may_be_cut(tls: ServerTls, tmp_path: Path) -> None:
    """The event loop tells of a lost TLS connection a turn after it has closed the socket."""

    state = ListenerState(app, keep_alive=DEADLINE, held_limit=0)
    connection = Connection(state)
    acceptor = Acceptor(await open_sockets(HOST, 0), lambda admission: connection, state.rules, tls)
    await asyncio.to_thread(presented, acceptor.port, tmp_path, None)
    while connection.transport.get_extra_info("socket") is not None:  # noqa: ASYNC110  (nothing tells of it)
        await asyncio.sleep(0)
    connection.cut(reset=True)
    await acceptor.close()
    await state.idle.wait()


@needs("openssl")
def test_an_encrypted_key_is_refused_without_a_question(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    key = tmp_path / "encrypted.pem"
    command: list[Any] = ["openssl", "pkey", "-in", tmp_path / "key.pem", "-out", key]
    command += ["-aes256", "-passout", "pass:secret"]
    subprocess.run(command, check=True)

    assert problem_of(tmp_path / "cert.pem", key) == (
        f"http.tls_key {key} is encrypted; store the key without a password, readable by its owner"
    )


def problem_of(certificate: Path, key: Path) -> str:
    with pytest.raises(SettingsError) as raised:
        ServerTls(certificate, key)
    return str(raised.value)


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_a_file_that_vanishes_while_it_is_loaded_leaves_the_old_certificate(
    tls: ServerTls, tmp_path: Path, name: str
) -> None:
    file, before = tmp_path / name, tls.context
    text = file.read_bytes()
    file.unlink()
    os.mkfifo(file, 0o600)

    def vanish() -> None:
        with file.open("wb") as pipe:  # opens when the engine opens the file
            file.unlink()
            pipe.write(text)

    with ThreadPoolExecutor(1) as writer:
        writer.submit(vanish)
        with pytest.raises(SettingsError, match=r"No such file or directory.*; try again"):
            tls.reload()

    assert tls.context is before


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n" + b"x" * 100_000]
)
async def test_a_refusal_ends_with_close_notify(tls: ServerTls, tmp_path: Path, sent: bytes) -> None:
    def ask(port: int) -> bytes:
        with connect(port, tmp_path) as connection:
            connection.sendall(sent)
            answer = b""
            while piece := connection.recv(1 << 16):  # without close_notify: SSLEOFError
                answer += piece
            return answer

    async with listen(app, HOST, 0, tls=tls) as port:
        answer = await asyncio.to_thread(ask, port)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 417 "))
