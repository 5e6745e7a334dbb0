"""Signatures of requests by access key (scheme SDK-HMAC-SHA256)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "SDK-HMAC-SHA256"


def sign(
    method: str, target: str, headers: Mapping[str, str], body: bytes, *, access: str, secret: str, moment: float
) -> dict[str, str]:
    """Return the headers X-Sdk-Date and Authorization of a request.

    ``target`` is path and query. All ``headers`` are signed, and must include Host. ``moment`` is the time in seconds
    since the epoch.
    """
    date = datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = sorted({**{name.lower(): value.strip() for name, value in headers.items()}, "x-sdk-date": date}.items())
    names = ";".join(name for name, _ in signed)
    path, _, query = target.partition("?")
    canonical = "\n".join(
        (
            method,
            _canonical_path(path),
            _canonical_query(query),
            *(f"{name}:{value}" for name, value in signed),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    text = f"{ALGORITHM}\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(secret.encode(), text.encode(), "sha256").hex()
    authorization = f"{ALGORITHM} Access={access}, SignedHeaders={names}, Signature={signature}"
    return {"X-Sdk-Date": date, "Authorization": authorization}


def _canonical_path(path: str) -> str:
    path = "/".join(quote(unquote(segment), safe="") for segment in path.split("/"))
    return path if path.endswith("/") else f"{path}/"


def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
