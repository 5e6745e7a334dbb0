"""TLS of a listener: certificate and key, which can be replaced while the listener runs."""

from __future__ import annotations

import asyncio
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
        self.context = _load(certificate, key)
        self._selector = _Selector(self.context)
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
    from cryptography.x509 import load_pem_x509_certificate  # takes memory, which engines without TLS save

    try:
        first = load_pem_x509_certificate(text.encode("latin-1"))
    except ValueError as error:
        raise SettingsError(f"cannot read the validity of {_CERTIFICATE} {certificate} ({error})") from None
    now, begin, end = datetime.now(UTC), first.not_valid_before_utc, first.not_valid_after_utc
    if now > end:
        raise SettingsError(f"{_CERTIFICATE} {certificate} expired at {end:{_TIME}} UTC; renew the certificate")
    if now < begin:
        raise SettingsError(
            f"{_CERTIFICATE} {certificate} is not valid before {begin:{_TIME}} UTC; check this machine's clock"
        )
