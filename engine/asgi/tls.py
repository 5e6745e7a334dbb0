"""TLS of a listener: certificate and key, which can be replaced while the listener runs."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.asgi.responses import Refusal
from engine.errors import SettingsError
from engine.errors.files import check_closed

#: Seconds that a client may take for the TLS handshake.
HANDSHAKE_TIMEOUT = 10.0

_CERTIFICATE, _KEY = "http.tls_certificate", "http.tls_key"  #: names of the settings, for messages
_TIME = "%Y-%m-%d %H:%M:%S"

#: Bytes that a TLS connection buffers before reading or writing pauses: as for plain connections, and not 256 and 512
#: KiB, which are the defaults of event loops.
BUFFERED = 64 << 10

_PLAINTEXT = Refusal(400, b"plain HTTP was sent to a port with TLS; use https://")


def limit_buffers(transport: Any) -> None:
    """Bound the memory of a connection whose client sends without end, or reads no response."""
    transport.set_read_buffer_limits(BUFFERED)
    transport.set_write_buffer_limits(BUFFERED)


async def speaks_tls(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bool:
    """Wait for the first byte of a client, which stays unread. Close the socket if it is not of TLS.

    The client gets a hint then. Raises TimeoutError, and closes the socket, if no byte comes.
    """
    readable, is_tls = asyncio.Event(), False
    loop.add_reader(sock, readable.set)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await readable.wait()
        is_tls = not sock.recv(1, socket.MSG_PEEK).isalpha()
        if not is_tls:
            sock.recv(BUFFERED)  # bytes that are left unread would reset the connection
            sock.send(_PLAINTEXT.response(b"", only_head=False))
        return is_tls
    finally:
        loop.remove_reader(sock)
        if not is_tls:
            sock.close()


class ServerTls:
    """Certificate and key of a listener, loaded from two PEM files.

    ``context`` is for the listening socket. Each new connection takes the certificate that was loaded last. Raises
    SettingsError if the files cannot be used, for example because other users can read the key, because the certificate
    is not valid now, or because they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._selector = _Selector(_load(certificate, key))
        self.context = _load(certificate, key)
        # A context that is in use keeps its first certificate, whatever is loaded into it later. OpenSSL therefore asks
        # at each handshake for the context to use, also if the client names no server.
        self.context.sni_callback = self._selector

    def reload(self) -> None:
        """Load both files again, for new connections.

        Raises SettingsError if they cannot be used. The previous certificate then stays in use.
        """
        self._selector.current = _load(self._certificate, self._key)


class _Selector:
    """Choice of the context for a connection: the one that was loaded last. Called at each handshake."""

    def __init__(self, current: ssl.SSLContext) -> None:
        self.current = current

    def __call__(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self.current


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    try:
        return _loaded(certificate, key)
    except OSError as error:  # a file that was replaced meanwhile
        problem = error.strerror or str(error)
        files = f"{_CERTIFICATE} {certificate} and {_KEY} {key}"
        raise SettingsError(f"cannot read {files} ({problem}); try again") from None


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    text = _read_part(certificate, _CERTIFICATE, "CERTIFICATE-----", "a certificate, followed by its issuers'")
    _read_part(key, _KEY, "PRIVATE KEY-----", "the certificate's private key")
    check_closed(key, key.stat(), f"{_KEY} {key} is a secret")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1")  # Debian's Python also offers those of RSA
    context.set_alpn_protocols(["http/1.1"])

    def refuse_password() -> str:
        # Without this function, OpenSSL would ask on the terminal and wait.
        raise SettingsError(f"http.tls_key {key} is encrypted; store the key without a password, readable by its owner")

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        problem = (error.reason or str(error)).lower().replace("_", " ")
        raise SettingsError(
            f"cannot use the certificate {certificate} with the key {key} ({problem}); name PEM files that belong "
            "together by http.tls_certificate and http.tls_key"
        ) from None
    _check_validity(certificate, text)
    return context


def _read_part(file: Path, setting: str, mark: str, content: str) -> str:
    """Return the text of the file. Raises SettingsError unless the file is readable and contains ``mark``."""
    try:
        text = file.read_text("latin-1")
    except OSError as error:
        problem = error.strerror or str(error)
        raise SettingsError(f"cannot read {setting} {file} ({problem}); name a file that the engine may read") from None
    if mark not in text:
        raise SettingsError(f"{setting} {file} holds no line -----BEGIN … {mark}; store {content} in PEM form")
    return text


def _check_validity(certificate: Path, text: str) -> None:
    """Raise SettingsError unless the first certificate of the file is valid now. Clients would refuse it."""
    try:
        begin, end = validity_of(text)
    except ValueError as error:
        raise SettingsError(f"cannot read the validity of {_CERTIFICATE} {certificate} ({error})") from None
    now = datetime.now(UTC)
    if now > end:
        raise SettingsError(f"{_CERTIFICATE} {certificate} expired at {end:{_TIME}} UTC; renew the certificate")
    if now < begin:
        raise SettingsError(
            f"{_CERTIFICATE} {certificate} is not valid before {begin:{_TIME}} UTC; check this machine's clock"
        )


_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([\sA-Za-z0-9+/=]+)-----END")
_VERSION, _SHORT_YEAR = 0xA0, 0x17  #: tags of optional parts: the version, a time with two digits for the year


def validity_of(text: str) -> tuple[datetime, datetime]:
    """Return the begin and the end of the validity of the first certificate in a PEM file.

    Raises ValueError if the text contains no certificate, or a malformed one.
    """
    match = _PEM.search(text)
    if match is None:
        raise ValueError("no certificate")
    der = base64.b64decode(match[1])
    try:
        return _validity(der)
    except IndexError:
        raise ValueError("the certificate is cut short") from None


def _validity(der: bytes) -> tuple[datetime, datetime]:
    _, certificate, _ = _element(der, 0)
    _, content, _ = _element(der, certificate)
    tag, _, end = _element(der, content)
    at = end if tag == _VERSION else content
    for _ in ("serial number", "algorithm of the signature", "issuer"):
        _, _, at = _element(der, at)
    _, begin, _ = _element(der, at)
    _, _, until = _element(der, begin)
    return _time(der, begin), _time(der, until)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at a position, and the positions of its content and its end."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:  # the length itself has several bytes
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    return tag, start, start + length


def _time(der: bytes, at: int) -> datetime:
    tag, start, end = _element(der, at)
    text = der[start:end].decode("latin-1")
    if tag == _SHORT_YEAR:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
