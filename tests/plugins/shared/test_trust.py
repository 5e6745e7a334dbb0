"""Certificates that clients of the engine trust."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

from functiond.configuration import Configuration

from plugins._shared.connections import client_context
from plugins._shared.http_client import HttpService
from tests.support.programs import needs


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def accepts(client: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    """Return whether a handshake succeeds in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return bool(ends[0].getpeercert())


@needs("openssl")
def test_an_authority_without_key_usage_is_trusted(tmp_path: Path) -> None:
    name, to = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"), ("-noenc", "-newkey", "rsa:2048")
    openssl(tmp_path, "req", "-x509", *to, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Our own")
    openssl(tmp_path, "req", "-x509", *to, *name, "-keyout", "key", "-out", "cert", "-CA", "ca.pem", "-CAkey", "ca.key")
    server, ca = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), str(tmp_path / "ca.pem")
    server.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    of_client = Configuration(url="https://localhost", ca_file=ca).tls()
    assert of_client is not None
    of_plugins = HttpService(1.0, ca).trust()

    assert [accepts(client, server) for client in (client_context(ca, "", ""), of_client, of_plugins)] == [True] * 3
