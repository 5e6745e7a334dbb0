"""SSL contexts for clients that connect to servers over TLS."""

from __future__ import annotations

import ssl


def client_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return a context that checks certificates and host names. Raises OSError if a file cannot be read.

    Without ``ca_file`` the machine's certificate authorities are trusted; without ``cert_file`` no client certificate
    is sent.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    return context
