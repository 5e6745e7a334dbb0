"""Sessions of the console: their end, their limits, what is stored, their cookies and connections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import CONSOLE_COOKIES, Scope
from engine.auth.credentials import AccessKey, Principals, Token
from engine.auth.roles import Principal
from engine.http.console.pages import COOKIE
from engine.http.console.session import sessions as module
from engine.http.console.session.browser import is_encrypted, is_private, make_cookie, session_cookie
from engine.http.console.session.sessions import LIFETIME, MOST, OF_ONE, Sessions
from tests.doubles import ManualClock
from tests.doubles.store import MemoryStore
from tests.doubles.writes import MemoryWrites

SECRET, TOKEN = "the-secret-of-a-key", "the-token-of-a-project"


def principals(*, secret: str = SECRET, token: str = TOKEN, expires: float | None = None) -> Principals:
    ends = None if expires is None else datetime.fromtimestamp(expires, UTC)
    keys = [AccessKey(access=access, secret=secret, project="p1") for access in ("AK1", "AK2")]
    return Principals(keys, [Token(token=token, project="p1", expires=ends)])


def of_key(known: Principals, access: str = "AK1") -> Principal:
    principal = known.of_access(access)
    assert principal is not None
    return principal


def of_token(known: Principals) -> Principal:
    principal = known.of_token(TOKEN.encode())
    assert principal is not None
    return principal


Find = Callable[[Principals], Principal]


class Place:
    """Storage of sessions, a clock, and engines that use both, one after the other."""

    def __init__(self) -> None:
        self.clock, self.writes = ManualClock(), MemoryWrites()
        self.store = MemoryStore(self.writes)

    async def sessions(self, known: Principals | None = None) -> Sessions:
        sessions = Sessions(self.store, self.clock)
        await sessions.load(known or principals())
        return sessions

    async def stored(self) -> dict[str, bytes]:
        return dict(await self.store.scan("session"))


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.mark.parametrize("kind", [of_key, of_token])
async def test_a_session_lasts_twelve_hours_also_over_a_restart(
    place: Place, kind: Callable[[Principals], Principal]
) -> None:
    known = principals()
    sessions = await place.sessions()
    session_id = await sessions.open(kind(known))

    place.clock.advance(LIFETIME / 2)
    after = await place.sessions()
    halfway = [holder.find(session_id, known) for holder in (sessions, after)]
    place.clock.advance(LIFETIME / 2 - 1)
    late = after.find(session_id, known)
    place.clock.advance(1)

    assert halfway == [kind(known)] * 2
    assert late == kind(known)
    assert [holder.find(session_id, known) for holder in (sessions, after)] == [None, None]
    await place.sessions()
    assert await place.stored() == {}


async def test_neither_ids_nor_secrets_are_stored_and_what_is_stored_opens_nothing(place: Place) -> None:
    sessions = await place.sessions()
    session_id = await sessions.open(of_key(principals()))
    [stored] = await place.stored()

    texts = [key.encode() + row for key, row in (await place.stored()).items()]
    assert len(texts) == 1
    assert not any(text.encode() in texts[0] for text in (session_id, SECRET))
    assert b"AK1" in texts[0]
    assert [sessions.find(text, principals()) for text in (stored, session_id[:-1], "", "\udc80x"[1:])] == [None] * 4


@pytest.mark.parametrize(
    "later",
    [
        Principals([], []),
        principals(secret="another-secret-of-it"),
        Principals([AccessKey(access="AK1", secret=SECRET, project="p1", token="now-it-is-temporary")], []),
    ],
)
async def test_a_session_ends_with_its_credential(place: Place, later: Principals) -> None:
    known = principals()
    sessions = await place.sessions()
    session_id = await sessions.open(of_key(known))

    assert sessions.find(session_id, later) is None
    assert sessions.find(session_id, known) is None  # also if the credential comes back


async def test_a_reload_or_start_ends_sessions_of_removed_credentials_and_no_others(place: Place) -> None:
    known = principals()
    sessions = await place.sessions()
    key, token = await sessions.open(of_key(known)), await sessions.open(of_token(known))

    await sessions.retain(Principals([AccessKey(access="AK1", secret=SECRET, project="p1", role="read")], []))
    await sessions.retain(known)

    assert sessions.find(token, known) is None
    assert sessions.find(key, known) == of_key(known)
    assert len(await place.stored()) == 1
    await place.sessions(Principals([], []))
    assert (await place.sessions()).find(key, known) is None


async def test_a_session_ends_when_its_credential_expires(place: Place) -> None:
    known = principals(expires=place.clock.now() + 60)
    sessions = await place.sessions(known)
    session_id = await sessions.open(of_token(known))
    ends_at = sessions.ends_at(session_id)

    place.clock.advance(60)

    assert ends_at == place.clock.now()
    assert sessions.find(session_id, known) is None


async def test_a_clock_that_is_set_back_prolongs_no_session(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = 0.0
    monkeypatch.setattr(module, "_elapsed", lambda: elapsed)
    known, sessions = principals(), await place.sessions()
    session_id = await sessions.open(of_key(known))

    place.clock.advance(-LIFETIME)
    after = await place.sessions()
    elapsed = LIFETIME - 1
    early = [holder.find(session_id, known) for holder in (sessions, after)]
    elapsed = LIFETIME

    assert early == [of_key(known)] * 2
    assert [holder.find(session_id, known) for holder in (sessions, after)] == [None, None]


async def test_the_oldest_session_of_a_credential_makes_room(place: Place) -> None:
    known, sessions = principals(), await place.sessions()
    other = await sessions.open(of_key(known, "AK2"))
    ids = []
    for _ in range(OF_ONE + 2):
        place.clock.advance(1)
        ids.append(await sessions.open(of_key(known)))

    after = await place.sessions()
    for holder in (sessions, after):
        assert [session_id for session_id in ids if holder.find(session_id, known) is None] == ids[:2]
        assert holder.find(other, known) is not None
    assert len(await place.stored()) == OF_ONE + 1


async def test_all_sessions_have_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST > 10 * OF_ONE
    monkeypatch.setattr(module, "MOST", 2)
    known, sessions = principals(), await place.sessions()
    ids = [await sessions.open(of_key(known, access)) for access in ("AK1", "AK2", "AK1")]

    assert [sessions.find(session_id, known) is None for session_id in ids] == [True, False, False]
    assert len(await place.stored()) == 2


async def test_a_session_opens_and_ends_while_the_storage_fails(place: Place) -> None:
    known, sessions = principals(), await place.sessions()
    before = await sessions.open(of_key(known))
    place.writes.fail("the disk is full")
    session_id = await sessions.open(of_key(known))
    await sessions.end(before)

    assert sessions.find(session_id, known) is not None
    assert sessions.find(before, known) is None
    place.writes.heal()
    assert await sessions.open(of_key(known, "AK2"))
    assert (await place.sessions()).find(before, known) is None  # deleted with the next write


async def test_rows_that_are_no_sessions_are_left_out(place: Place) -> None:
    known = principals()
    session_id = await (await place.sessions()).open(of_key(known))
    await place.store.write("session", {"a" * 64: b"no json", "b" * 64: b"{}"})

    assert (await place.sessions()).find(session_id, known) == of_key(known)
    assert len(await place.stored()) == 1


async def test_the_key_of_forms_is_kept(place: Place) -> None:
    first, second = await place.sessions(), await place.sessions()

    assert first.form_key == second.form_key
    assert len(first.form_key) == 32


# --- cookies and connections ---------------------------------------------------------------------------------

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


def test_over_https_no_other_host_and_no_plain_http_can_set_the_session() -> None:
    proxied = Forwarded(client="192.0.2.1", chain="192.0.2.1", scheme="https", port="443")
    names = [session_cookie(scope, "n") for scope in ({"scheme": "https"}, {"scheme": "http", FORWARDED: proxied})]

    assert names == ["__Host-n"] * 2
    assert make_cookie(names[0], "v", max_age=7) == (
        b"Set-Cookie",
        b"__Host-n=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=7; Secure",
    )


def test_without_https_the_session_is_for_pages_of_the_console() -> None:
    assert make_cookie(session_cookie({"scheme": "http"}, "n"), "v", max_age=7) == (
        b"Set-Cookie",
        b"n=v; Path=/console/; HttpOnly; SameSite=Strict; Max-Age=7",
    )


def test_gateways_know_the_cookies_of_the_console() -> None:
    assert COOKIE.encode().startswith(CONSOLE_COOKIES)
