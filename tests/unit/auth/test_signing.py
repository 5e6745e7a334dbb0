"""Request signatures, compared with the vendor's signer, an independent recomputation and fixed vectors."""

from __future__ import annotations

import hashlib
import hmac
import warnings
from hmac import compare_digest
from urllib.parse import parse_qsl, quote, unquote

import pytest
from functiond.signing import canonical_path, canonical_query, canonical_request, hash_of, sign, signature
from hypothesis import given
from hypothesis import strategies as st

from engine.auth.signing import read_authorization, read_date

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's warnings
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.sdk_request import SdkRequest
    from huaweicloudsdkcore.signer.signer import Signer

ACCESS, SECRET, DATE = "LOCALAK", "LOCALSK-of-the-tests", "20260131T235959Z"
HEADERS = {
    "Host": "127.0.0.1:8080",
    "Content-Type": "application/json",
    "User-Agent": "huaweicloud-usdk-python/3.0; os/x; app/1",
    "X-Project-Id": "p1",
    "X-Sdk-Date": DATE,
}
PATH = "/v2/p1/fgs/functions/urn%3Afss%3Alocal-1%3Ap1%3Afunction%3Adefault%3Ahello%3A%21live/invocations-async"
Pairs = list[tuple[str, str]]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="/"), min_size=1, max_size=8)


def by_the_sdk(method: str, path: str, query: Pairs, body: bytes, **more: str) -> tuple[str, str]:
    """Return the Authorization header of the vendor's signer, and the target that it sends."""
    request = SdkRequest(
        method=method,
        schema="http",
        host="127.0.0.1:8080",
        resource_path=path,
        query_params=list(query),
        header_params={**HEADERS, **more},
        body=body,
    )
    signed = Signer(BasicCredentials(ACCESS, SECRET, "p1")).sign(request)
    return signed.header_params["Authorization"], signed.uri


def recomputed(method: str, target: str, headers: dict[str, str], body: bytes) -> str:
    """Compute the signature from the specification alone."""
    path, _, query = target.partition("?")
    uri = "/".join(quote(part, safe="-_.~") for part in unquote(path).split("/"))
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    lines = [
        method,
        uri if uri.endswith("/") else uri + "/",
        "&".join(f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in pairs),
        *(f"{name}:{value.strip()}" for name, value in sorted((n.lower(), v) for n, v in headers.items())),
        "",
        ";".join(sorted(name.lower() for name in headers)),
        hashlib.sha256(body).hexdigest(),
    ]
    to_sign = f"SDK-HMAC-SHA256\n{DATE}\n{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
    return hmac.new(SECRET.encode(), to_sign.encode(), hashlib.sha256).hexdigest()


def verified(authorization: str, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify the signature as the server does, from the bytes on the wire."""
    proof = read_authorization(authorization.encode())
    assert proof is not None
    path, _, query = target.encode().partition(b"?")
    wire = {name.lower().encode(): value.encode() for name, value in headers.items()}
    canonical = canonical_request(
        method.encode(), canonical_path(path), canonical_query(query), wire, proof.signed, hash_of(body)
    )
    return compare_digest(signature(SECRET.encode(), DATE.encode(), canonical), proof.signature)


@given(segments=st.lists(names, max_size=4), query=st.lists(st.tuples(names, text), max_size=4), body=st.binary())
def test_a_signature_of_the_vendors_signer_is_verified(segments: list[str], query: Pairs, body: bytes) -> None:
    path = "/v2/" + "/".join(quote(part, safe="") for part in segments)

    authorization, target = by_the_sdk("POST", path, query, body)

    assert verified(authorization, "POST", target, HEADERS, body)
    assert not verified(authorization, "POST", target, HEADERS, body + b" ")
    assert not verified(authorization, "PUT", target, HEADERS, body)


@given(segments=st.lists(names, max_size=4), query=st.lists(st.tuples(names, text), max_size=4), body=st.binary())
def test_our_signature_is_that_of_the_vendor_and_of_the_specification(
    segments: list[str], query: Pairs, body: bytes
) -> None:
    path = "/v2/" + "/".join(quote(part, safe="") for part in segments)
    theirs, target = by_the_sdk("GET", path, query, body)

    ours = sign("GET", target, HEADERS, body, access=ACCESS, secret=SECRET, moment=read_date(DATE.encode()) or 0.0)

    assert ours == {"X-Sdk-Date": DATE, "Authorization": theirs}
    assert theirs.endswith(recomputed("GET", target, HEADERS, body))


def test_headers_with_an_underscore_are_not_signed() -> None:
    theirs, target = by_the_sdk("GET", PATH, [], b"", a_b="1")

    ours = sign("GET", target, {**HEADERS, "a_b": "1"}, b"", access=ACCESS, secret=SECRET, moment=1769903999.0)

    assert ours["Authorization"] == theirs


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("POST", PATH, b'{"k": "v"}', "3ea51afe91317547cef09e7b8baee3f71c971c60cf6d3734a56b620bf9b667c6"),
        (
            "GET",
            "/v2/p1/fgs/functions?maxitems=10&marker=0&func_name=%C3%A9%20a",
            b"",
            "8e8e2a25e16c00bba0833f4ffda76e9a9bd7e357e7a43ed34bc8a6c5370aac34",
        ),
    ],
)
def test_vectors_stay_as_they_are(method: str, target: str, body: bytes, expected: str) -> None:
    added = sign(method, target, HEADERS, body, access=ACCESS, secret=SECRET, moment=read_date(DATE.encode()) or 0.0)

    assert added["Authorization"].rpartition("=")[2] == expected == recomputed(method, target, HEADERS, body)


def test_a_header_of_a_presigned_request_keeps_its_spaces_inside_and_loses_those_around() -> None:
    headers = {**HEADERS, "X-Cff-Log-Type": "  tail  of  log "}
    authorization, target = by_the_sdk("POST", PATH, [], b"", **headers)

    assert verified(authorization, "POST", target, headers, b"")
    assert not verified(authorization, "POST", target, {**headers, "X-Cff-Log-Type": "tail of log"}, b"")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"/a:b", b"/a%3Ab/"),
        (b"/a/", b"/a"),
        (b"/%7e%41", b"/~A"),
        (b"/%e4%bd%a0", b"/\xe4\xbd\xa0"),
    ],
)
def test_paths_that_mean_the_same_are_the_same(one: bytes, other: bytes) -> None:
    assert canonical_path(one) == canonical_path(other)
    assert canonical_path(one) != canonical_path(b"/a/b")


@pytest.mark.parametrize("other", [b"/v2/a%2Fconfig", b"/v2/a%2fconfig", b"/v2%2Fa/config", b"/v2/a%252Fconfig"])
def test_no_signature_of_a_path_covers_one_with_an_encoded_slash(other: bytes) -> None:
    authorization, _ = by_the_sdk("POST", "/v2/a/config", [], b"")

    assert verified(authorization, "POST", "/v2/a/config", HEADERS, b"")
    assert not verified(authorization, "POST", other.decode(), HEADERS, b"")


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        (b"", b""),
        (b"b=2&a=1", b"a=1&b=2"),
        (b"a=2&a=1&a", b"a=&a=1&a=2"),
        (b"a=x+y&&b=%2B", b"a=x%20y&b=%2B"),
        (b"a=b=c", b"a=b%3Dc"),
        (b"a-=1&a=2", b"a=2&a-=1"),
    ],
)
def test_a_query_is_sorted_and_encoded_in_one_way(query: bytes, canonical: bytes) -> None:
    assert canonical_query(query) == canonical


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer abc",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=12",
        f"SDK-HMAC-SHA256 Access=, SignedHeaders=host, Signature={'0' * 64}",
        f"SDK-HMAC-SHA256 Access=a, SignedHeaders=, Signature={'0' * 64}",
        f"SDK-HMAC-SHA256 Access=a, SignedHeaders=Host, Signature={'0' * 64}",
        f"SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature={'0' * 64}, More=1",
        f"V11-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature={'0' * 64}",
    ],
)
def test_another_scheme_is_not_read(value: str) -> None:
    assert read_authorization(value.encode()) is None


def test_the_parts_of_authorization_are_read() -> None:
    proof = read_authorization(
        f"SDK-HMAC-SHA256 Access=AK-1, SignedHeaders=host;x-sdk-date, Signature={'A' * 64}".encode()
    )

    assert proof is not None
    assert (proof.access, proof.signed, proof.signature) == ("AK-1", (b"host", b"x-sdk-date"), b"a" * 64)


@pytest.mark.parametrize(
    "value", ["", "2026-01-31", "20260231T000000Z", "20260131T240000Z", "20260131T235959", "x" * 16]
)
def test_a_text_that_is_no_date_has_no_moment(value: str) -> None:
    assert read_date(value.encode()) is None
