"""Connections over which the console takes a secret key, and names and attributes of its cookies."""

from __future__ import annotations

import pytest

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import CONSOLE_COOKIES, Scope
from engine.http.console.pages import COOKIE
from engine.http.console.session.browser import is_encrypted, is_private, make_cookie, session_cookie

LOCAL = {b"host": b"127.0.0.1:8080"}
REMOTE = {b"host": b"engine.example"}


def scope(scheme: str, client: str, forwarded: Forwarded | None = None) -> Scope:
    found: Scope = {"scheme": scheme, "client": (client, 0)}
    return {**found, FORWARDED: forwarded} if forwarded else found


def told(client: str, scheme: str = "") -> Forwarded:
    return Forwarded(client=client, chain=client, scheme=scheme)


@pytest.mark.parametrize(
    ("given", "headers", "private"),
    [
        (scope("https", "192.0.2.1"), REMOTE, True),
        (scope("http", "192.0.2.1"), REMOTE, False),
        (scope("http", "192.0.2.1"), LOCAL, False),
        (scope("http", "127.0.0.1"), LOCAL, True),
        (scope("http", "::1"), {b"host": b"[::1]:8080"}, True),
        (scope("http", "127.0.0.1"), {}, False),
        (scope("http", ""), LOCAL, False),
        # A proxy that is not trusted may have clients anywhere.
        (scope("http", "127.0.0.1"), REMOTE, False),
        (scope("http", "127.0.0.1"), {**LOCAL, b"x-forwarded-for": b"127.0.0.1"}, False),
        (scope("http", "127.0.0.1"), {**LOCAL, b"forwarded": b"proto=https"}, False),
        (scope("http", "127.0.0.1"), {**LOCAL, b"x-forwarded-proto": b"https"}, False),
        # The word of a trusted proxy counts. Its own connection to the engine does not.
        (scope("https", "192.0.2.1", told("192.0.2.1", "https")), REMOTE, True),
        (scope("http", "192.0.2.1", told("192.0.2.1", "http")), REMOTE, False),
        (scope("https", "192.0.2.1", told("192.0.2.1")), REMOTE, False),
        (scope("http", "127.0.0.1", told("127.0.0.1", "http")), {**LOCAL, b"x-forwarded-for": b"127.0.0.1"}, True),
    ],
)
def test_nobody_can_read_a_private_connection(given: Scope, headers: dict[bytes, bytes], private: bool) -> None:
    assert is_private(given, headers) is private


def test_only_https_is_encrypted() -> None:
    assert is_encrypted(scope("https", "192.0.2.1"))
    assert not is_encrypted(scope("http", "127.0.0.1"))


# --- cookies -------------------------------------------------------------------------------------------------


def test_over_https_no_other_host_and_no_plain_http_can_set_the_session() -> None:
    proxied = Forwarded(client="192.0.2.1", chain="192.0.2.1", scheme="https", port="443")
    names = [session_cookie(scope, "n") for scope in ({"scheme": "https"}, {"scheme": "http", FORWARDED: proxied})]

    assert names == ["__Host-n"] * 2
    assert make_cookie(names[0], "v", max_age=7) == (
        b"set-cookie",
        b"__Host-n=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=7; Secure",
    )


def test_without_https_the_session_is_for_pages_of_the_console() -> None:
    assert make_cookie(session_cookie({"scheme": "http"}, "n"), "v", max_age=7) == (
        b"set-cookie",
        b"n=v; Path=/console/; HttpOnly; SameSite=Strict; Max-Age=7",
    )


def test_gateways_know_the_cookies_of_the_console() -> None:
    assert COOKIE.encode().startswith(CONSOLE_COOKIES)
