"""Signatures of the client, checked by the engine's verifier."""

from __future__ import annotations

import hashlib

import pytest
from functiond.signing import sign

from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import SignatureVerifier
from engine.errors import Unauthorized
from tests.doubles import ManualClock

NOW = 1_800_000_000.0
HEADERS = {"Host": "127.0.0.1:8080", "Content-Type": "application/json", "X-Functiond-Delay": "5"}


def problem(method: str, target: str, body: bytes, *, secret: str = "secret", received: bytes | None = None) -> str:
    headers = HEADERS | sign(method, target, HEADERS, body, access="AK", secret="secret", moment=NOW)
    path, _, query = target.encode().partition(b"?")
    wire = {name.lower().encode(): value.encode() for name, value in headers.items()}
    clock, scope = ManualClock(NOW), {"method": method, "raw_path": path, "query_string": query}
    verifier = SignatureVerifier(clock, AuthThrottle(clock, limit=9, window=1.0))
    digest = hashlib.sha256(body if received is None else received).hexdigest().encode()
    try:
        verifier.verify_hash(verifier.claim(scope, wire, lambda access: secret.encode()), digest)
    except Unauthorized as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "target",
    ["/v2/p/fgs/functions/urn:fss:a/b", "/v2/p%20q/x!", "/p/a%2Fb", "/p?wait=1.000", "/p?b=2&a=%2F&a=", "/p/?x=%C3%BC"],
)
@pytest.mark.parametrize("body", [b"", b'{"a":1}'])
def test_the_engine_accepts_a_signature(target: str, body: bytes) -> None:
    assert problem("POST", target, body) == ""


def test_the_engine_refuses_another_body_or_key() -> None:
    assert "does not match" in problem("POST", "/p", b"1", received=b"2")
    assert "does not match" in problem("POST", "/p", b"1", secret="other")
