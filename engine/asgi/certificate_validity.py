"""Validity of a certificate, read from its encoding (X.509 in DER). The module ``ssl`` reads it only from peers."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([\sA-Za-z0-9+/=]+)-----END")
_VERSION, _SHORT_YEAR = 0xA0, 0x17  #: tags of optional parts: the version, a time with two digits for the year


def validity_of(text: str) -> tuple[datetime, datetime]:
    """Return the begin and the end of the validity of the first certificate in a PEM file.

    Raises ValueError if the text contains no certificate, or a malformed one.
    """
    found = _PEM.search(text)
    if found is None:
        raise ValueError("no certificate")
    der = base64.b64decode(found[1])
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
