"""Whether a pushed message comes from where its certificate is served: RSA, PKCS #1 v1.5 (spec triggers_runtime, 3.1).

What is trusted is the host that serves the certificate: who issued it, and until when it is good, nobody says.
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

KEPT = 64  #: certificates
LIFE = 3600.0  #: seconds that one is kept
AT_ONCE = 4  #: that are fetched
DIGESTS = ("sha1", "sha256", "sha384", "sha512")


class Certificate(Struct, frozen=True, eq=False):
    key: RSAPublicKey
    digest: str  #: by which it was itself signed
    until: float


class Verifier:
    """``fetch`` gets a certificate, and is the one to know which URLs are good."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], now: Callable[[], float]) -> None:
        self._fetch, self._now = fetch, now
        self._kept: OrderedDict[str, Certificate] = OrderedDict()
        self._fetching = anyio.CapacityLimiter(AT_ONCE)

    async def check(self, pushed: Pushed) -> None:
        """Raises Unauthorized, and what ``fetch`` raises."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        certificate = await self._certificate(pushed.certificate_url)
        digest = _digest(pushed.digest or certificate.digest)
        try:
            certificate.key.verify(pushed.signature, pushed.signed, PKCS1v15(), digest)
        except InvalidSignature:
            raise Unauthorized("the signature does not fit the message") from None

    async def _certificate(self, url: str) -> Certificate:
        if found := self._find(url):
            return found
        async with self._fetching:
            if found := self._find(url):  # somebody else has fetched it meanwhile
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
    """Raises SettingsError if signatures cannot be checked here."""
    try:
        import cryptography  # noqa: F401  (whether it is there)
        import httpx  # noqa: F401
    except ImportError as error:
        hint = "to believe pushed messages needs the extra smn: pip install '.[smn]' in the clone"
        raise SettingsError(f"plugins.smn.hosts: {hint} ({error})") from None


def _read(content: bytes, until: float) -> Certificate:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(content)
        key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    except Exception as error:  # the library has many ways to say that it cannot read something
        raise Unauthorized(f"what lies at the URL of the certificate is none: {type(error).__name__}") from None
    if not isinstance(key, RSAPublicKey) or digest is None or digest.name not in DIGESTS:
        raise Unauthorized(f"the certificate needs an RSA key, and one of {', '.join(DIGESTS)}")
    return Certificate(key, digest.name, until)


def _digest(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    made: HashAlgorithm = getattr(hashes, name.upper())()
    return made
