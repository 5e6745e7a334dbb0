"""Connections to servers: client libraries, deadlines for servers that may never answer, and SSL contexts."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import anyio

from engine import SettingsError

PEM = "-----BEGIN "  #: beginning of certificates and keys as text


def load_library(name: str, user: str, extra: str) -> Any:
    """Return the module of a client library. Raises SettingsError, which names the extra, if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise SettingsError(f"{user} needs the extra {extra}: pip install '.[{extra}]' in the clone") from None


@contextmanager
def deadline(problem: str, seconds: float) -> Iterator[None]:
    """Raise ConnectionError with the text ``problem`` if the block takes more than ``seconds``."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise ConnectionError(f"{problem} within {seconds:.0f} s") from None


def client_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Return a context that checks certificates and host names. Each argument is PEM text, or the path of a file.

    Without ``ca`` the machine's certificate authorities are trusted; without ``cert`` no client certificate is sent.
    Raises OSError, which names the file, if one cannot be read or used.
    """
    given = ca
    try:
        context = ssl.create_default_context(cadata=_pem(ca) or None)
        if cert:
            with NamedTemporaryFile("w") as file:  # OpenSSL reads these from files only
                file.write(f"{_pem(cert)}\n{_pem(key)}")
                file.flush()
                given = cert
                context.load_cert_chain(file.name, password="")  # without, OpenSSL asks at a terminal
    except ssl.SSLError as error:
        raise OSError(f"TLS cannot use {'the PEM text' if _pem(given) == given else given}: {error}") from None
    return context


def _pem(given: str) -> str:
    return given if not given or given.lstrip().startswith(PEM) else Path(given).read_text("ascii", "ignore")
