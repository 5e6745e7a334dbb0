"""Names and attributes of the console's cookies."""

from __future__ import annotations

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import CONSOLE_COOKIES
from engine.http.console.cookies import make_cookie, session_cookie
from engine.http.console.notes import COOKIE


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
