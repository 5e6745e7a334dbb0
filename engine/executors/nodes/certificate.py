"""Certificate of the listener for agents, and the token of each node.

A token file has one line, ``NAME.SECRET.FINGERPRINT``: the name of the node, its secret, and the SHA-256 of the
engine's certificate, which the agent checks before it shows the secret. A ticket looks the same, but is good for one
connection soon.
"""

from __future__ import annotations

import hmac
import os
import secrets
import ssl
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.errors import SettingsError

_VALID = timedelta(days=3650)
_TICKET_SECONDS = 30.0


class Credentials:
    """Certificate and secrets of an engine's listener for agents."""

    def __init__(self, context: ssl.SSLContext, fingerprint: str, secrets: dict[str, str]) -> None:
        self.context, self.fingerprint, self._secrets = context, fingerprint, secrets
        self._tickets: dict[str, tuple[str, float]] = {}  #: secrets and the ends of their time, by the names of nodes

    def make_ticket(self, name: str) -> str:
        """Return a token of a node for one connection. The node's earlier ticket is void."""
        now = time.monotonic()
        self._tickets = {node: ticket for node, ticket in self._tickets.items() if ticket[1] > now}
        self._tickets[name] = secrets.token_hex(32), now + _TICKET_SECONDS
        return f"{name}.{self._tickets[name][0]}.{self.fingerprint}"

    def name_of(self, token: str) -> str | None:
        """Return the name of the node to which a token belongs; None if it belongs to none."""
        name, _, rest = token.partition(".")
        ticket, until = self._tickets.get(name, ("", 0.0))
        secret = ticket if until > time.monotonic() else self._secrets.get(name, "")
        if not secret or not hmac.compare_digest(secret.encode(), rest.partition(".")[0].encode()):
            return None
        self._tickets.pop(name, None)
        return name


def load_credentials(folder: Path, names: Iterable[str], certificate: str, key: str) -> Credentials:
    """Read certificate and tokens, and make those that are missing. Blocks. Raises SettingsError, and OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    certificate_path, key_path = Path(certificate or folder / "certificate.pem"), Path(key or folder / "key.pem")
    if not certificate and not (certificate_path.exists() and key_path.exists()):
        _make_certificate(certificate_path, key_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate_path, key_path)
        shown = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (OSError, ValueError) as error:
        problem = f"cannot use the certificate {certificate_path} with the key {key_path}: {error}"
        raise SettingsError(
            f"{problem}; name PEM files that belong together by executor.nodes.certificate and key"
        ) from None
    fingerprint = shown.fingerprint(hashes.SHA256()).hex()
    return Credentials(context, fingerprint, {name: _secret(folder, name, fingerprint) for name in names})


def _secret(folder: Path, name: str, fingerprint: str) -> str:
    """Return the secret of a node. Write its token file if that is missing, or of another certificate."""
    path = folder / f"{name}.token"
    old = path.read_text().strip().split(".") if path.exists() else []
    secret = old[1] if len(old) == 3 and len(old[1]) == 64 else secrets.token_hex(32)
    if old != [name, secret, fingerprint]:
        _write(path, f"{name}.{secret}.{fingerprint}\n".encode())
    return secret


def _make_certificate(certificate: Path, key: Path) -> None:
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "functiond nodes")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + _VALID)
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    _write(key, private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    _write(certificate, signed.sign(private, hashes.SHA256()).public_bytes(pem))


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
