"""Encrypted connections to servers, for clients that want an SSL context."""

from __future__ import annotations

import ssl


def client_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Checks certificates and hosts. An empty name means: the authorities of this machine, no certificate of one's own.

    Raises OSError if a file is not there.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    return context
