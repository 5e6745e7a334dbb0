"""Verification of messages from remote topics, by the certificate at a URL in the message.

Signatures are RSA with PKCS #1 v1.5, as SMN and SNS sign. A certificate is trusted because its host is in the settings.
Its issuer and validity period are not checked, since the vendor does not document them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from msgspec import Struct

from engine import SettingsError, Unauthorized
from plugins.smn.pushed import Pushed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

KEPT = 64  #: cached certificates
LIFE = 3600.0  #: seconds for which a certificate is cached
AT_ONCE = 4  #: concurrent downloads of certificates
DIGESTS = ("sha1", "sha256", "sha384", "sha512")


class Certificate(Struct, frozen=True, eq=False):
    key: RSAPublicKey
    digest: str  #: digest of the certificate's own signature
    until: float  #: end of caching


class Verifier:
    """Verifier of signatures, with a cache of certificates.

    ``fetch`` downloads a certificate. It raises Forbidden if the URL is not allowed or its host refuses, and
    Unavailable for a temporary failure.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], now: Callable[[], float]) -> None:
        self._fetch, self._now = fetch, now
        self._kept: OrderedDict[str, Certificate] = OrderedDict()
        self._fetching = anyio.CapacityLimiter(AT_ONCE)

    async def check(self, pushed: Pushed) -> None:
        """Verify a message. Raises Unauthorized if certificate or signature is invalid, and the errors of ``fetch``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        certificate = await self._certificate(pushed.certificate_url)
        digest = _digest(pushed.digest or certificate.digest)
        try:
            certificate.key.verify(pushed.signature, pushed.signed, PKCS1v15(), digest)
        except InvalidSignature:
            raise Unauthorized("the signature does not match the message") from None

    async def _certificate(self, url: str) -> Certificate:
        if found := self._find(url):
            return found
        async with self._fetching:
            if found := self._find(url):  # fetched by another task meanwhile
                return found
            found = self._kept[url] = _read(await self._fetch(url), self._now() + LIFE)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return found

    def _find(self, url: str) -> Certificate | None:
        found = self._kept.get(url)
        if found is None or found.until < self._now():
            return None
        self._kept.move_to_end(url)
        return found


def check_library() -> None:
    """Raise SettingsError unless the libraries cryptography and httpx are installed."""
    try:
        import cryptography  # noqa: F401  (tests the import)
        import httpx  # noqa: F401
    except ImportError as error:
        hint = "verification of pushed messages needs the extra smn: pip install '.[smn]' in the clone"
        raise SettingsError(f"plugins.smn.hosts: {hint} ({error})") from None


def _read(content: bytes, until: float) -> Certificate:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(content)
        key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    except Exception as error:  # the library raises many types of errors for invalid certificates
        raise Unauthorized(f"no valid certificate at the certificate's URL: {type(error).__name__}") from None
    if not isinstance(key, RSAPublicKey) or digest is None or digest.name not in DIGESTS:
        raise Unauthorized(f"the certificate must have an RSA key, and a signature with one of {', '.join(DIGESTS)}")
    return Certificate(key, digest.name, until)


def _digest(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    algorithm: HashAlgorithm = getattr(hashes, name.upper())()
    return algorithm
