"""Sessions of people who have signed in to the console, authentication by their cookie, and the tokens of their forms.

A session is a random id in a cookie. The storage holds its hash, so that nobody can sign in with a backup, and the name
of the credential, never a secret. A proof, which needs the id and the secret together, ties the session to the secret:
it ends if the secret is replaced under the same name. All sessions are in memory as well, so requests read no storage.

A session ends after ``LIFETIME``, at sign-out, and with its credential. It also ends after ``LIFETIME`` by the clock of
the event loop, so that setting the clock back prolongs none.

A session decides only for paths of the console. Its cookie gives no access to the API.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import msgspec
import structlog
from msgspec import Struct

from engine.asgi.wire import Headers, Receive, Scope
from engine.auth.credentials import Principals
from engine.auth.roles import Principal
from engine.errors import AccessDenied, Unavailable
from engine.http.api.routing import Call
from engine.http.auth import Authenticator, admit_as
from engine.http.console.paths import is_page
from engine.http.console.session.browser import read_cookie, session_cookie
from engine.model.clock import Clock
from engine.protocols import Store

STORE = "functiond.console"  #: no table of a plugin has this name
LIFETIME = 12 * 3600.0  #: seconds
OF_ONE = 20  #: sessions of one credential; a further one ends the oldest
MOST = 2000  #: sessions of all credentials

#: Key of the ASGI scope: id of the session by which a request is authenticated. Absent for all others.
SESSION = "functiond.console.session"

_SESSIONS, _KEYS, _FORMS = "session", "key", "forms"

log = structlog.get_logger("functiond.console")
FIELD = "form_token"  #: name of the field


class _Row(Struct, frozen=True, kw_only=True):
    credential: str  #: name of its principal
    proof: str
    ends_at: float  #: seconds since the epoch


class _Session(Struct, frozen=True, kw_only=True):
    row: _Row
    deadline: float  #: by the clock of the event loop


class Sessions:
    """Store of the sessions. Call ``load`` once, before the first request."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._sessions: dict[str, _Session] = {}  #: by the hash of the id, the oldest first
        self._ended: set[str] = set()  #: still stored
        self.form_key = secrets.token_bytes(32)  #: signs the forms of readers without a session

    async def load(self, principals: Principals | None) -> None:
        """Read the sessions and the key of forms as the previous engine stored them.

        ``principals`` are those of the present credentials; None ends all sessions.
        """
        keys = dict(await self._store.scan(_KEYS))
        bodies = await self._stored()
        rows = {key: row for key, body in bodies if (row := _decode(body)) is not None}
        self._ended = {key for key, _ in bodies} - rows.keys()
        for key, row in sorted(rows.items(), key=lambda item: item[1].ends_at):
            self._sessions[key] = self._session(row)
            known = principals is not None and principals.named(row.credential) is not None
            if not (known and self._is_live(self._sessions[key])):
                self._drop(key)
        if _FORMS in keys:
            self.form_key = keys[_FORMS]
        await self._write({} if _FORMS in keys else {_FORMS: self.form_key}, table=_KEYS)
        await self._write({})

    async def _stored(self) -> list[tuple[str, bytes]]:
        rows: list[tuple[str, bytes]] = []
        while page := await self._store.scan(_SESSIONS, after=rows[-1][0] if rows else ""):
            rows += page
        return rows

    async def open(self, principal: Principal) -> str:
        """Open a session for a principal, and return its id.

        If the storage cannot be written, the session lasts until the engine stops: people need the console then.
        """
        session_id = secrets.token_urlsafe(32)
        row = _Row(
            credential=principal.name,
            proof=_proof(session_id, principal),
            ends_at=min(self._clock.now() + LIFETIME, principal.expires),
        )
        self._make_room(principal.name)
        self._sessions[_hash(session_id)] = self._session(row)
        await self._write({_hash(session_id): msgspec.json.encode(row)})
        return session_id

    def find(self, session_id: str, principals: Principals) -> Principal | None:
        """Return the present principal of a session; None, and end the session, if it is over or its credential is."""
        key = _hash(session_id)
        session = self._sessions.get(key)
        if session is None:
            return None
        principal = principals.named(session.row.credential)
        if (
            principal is None
            or not self._is_live(session)
            or self._clock.now() >= principal.expires
            or not hmac.compare_digest(_proof(session_id, principal).encode(), session.row.proof.encode())
        ):
            self._drop(key)
            return None
        return principal

    def ends_at(self, session_id: str) -> float:
        """Return the time at which a session ends; 0 if there is none such."""
        session = self._sessions.get(_hash(session_id))
        return session.row.ends_at if session else 0.0

    async def end(self, session_id: str) -> None:
        if _hash(session_id) in self._sessions:
            self._drop(_hash(session_id))
            await self._write({})

    async def retain(self, principals: Principals) -> None:
        """End the sessions of all credentials that do not exist any more."""
        for key in [key for key, session in self._sessions.items() if principals.named(session.row.credential) is None]:
            self._drop(key)
        await self._write({})

    def _session(self, row: _Row) -> _Session:
        return _Session(row=row, deadline=_elapsed() + min(LIFETIME, row.ends_at - self._clock.now()))

    def _is_live(self, session: _Session) -> bool:
        return self._clock.now() < session.row.ends_at and _elapsed() < session.deadline

    def _make_room(self, credential: str) -> None:
        """End sessions that are over, then the oldest until one more is within the limits."""
        for key in [key for key, session in self._sessions.items() if not self._is_live(session)]:
            self._drop(key)
        own = [key for key, session in self._sessions.items() if session.row.credential == credential]
        for key in own[: max(0, len(own) - OF_ONE + 1)]:
            self._drop(key)
        if len(self._sessions) >= MOST:
            self._drop(next(iter(self._sessions)))

    def _drop(self, key: str) -> None:
        del self._sessions[key]
        self._ended.add(key)

    async def _write(self, put: dict[str, bytes], table: str = _SESSIONS) -> None:
        """Store rows, and delete those of sessions that have ended meanwhile."""
        ended: Iterable[str] = list(self._ended) if table == _SESSIONS else ()
        if not put and not ended:
            return
        try:
            await self._store.write(table, put, ended)
        except Unavailable as problem:  # what has ended is deleted with the next write
            log.warning("sessions of the console not stored", problem=str(problem))
        else:
            self._ended.difference_update(ended)


def _decode(body: bytes) -> _Row | None:
    try:
        return msgspec.json.decode(body, type=_Row)
    except msgspec.MsgspecError:
        return None


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def _proof(session_id: str, principal: Principal) -> str:
    secret = b"\0".join((principal.name.encode(), principal.secret, principal.token or b""))
    return hmac.new(session_id.encode(), secret, hashlib.sha256).hexdigest()


def _elapsed() -> float:
    """Return the time of the event loop, which no step of the clock changes."""
    return asyncio.get_running_loop().time()


class FormTokens:
    """Maker of tokens. ``key`` signs those of readers without a session."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token_for(self, call: Call) -> str:
        """Return the token of the forms in the page that ``call`` requests."""
        session_id, name = call.scope.get(SESSION), call.principal.name if call.principal else ""
        key = session_id.encode() if session_id else self._key
        return hmac.new(key, f"form {name}".encode(), hashlib.sha256).hexdigest()

    def check(self, call: Call, token: str) -> None:
        """Raise AccessDenied unless ``token`` was made for the same reader."""
        if not hmac.compare_digest(token.encode(), self.token_for(call).encode()):
            raise AccessDenied("this form has expired; go back, reload the page and send it again")


class ConsoleAuthenticator:
    """Authenticator of an engine with a console. ``cookie`` is the name of the cookie with the session's id.

    Engines on one machine share its cookies, whatever their ports. Each has its own name, so that they can be used side
    by side.
    """

    def __init__(self, authenticator: Authenticator, sessions: Sessions, cookie: str) -> None:
        self._authenticator, self._sessions, self._cookie = authenticator, sessions, cookie

    async def admit(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Authenticate a request. See ``Authenticator.admit``."""
        if is_page(scope["path"]) and b"x-auth-token" not in headers:
            session_id = read_cookie(headers, session_cookie(scope, self._cookie))
            principal = self._sessions.find(session_id, self._authenticator.principals) if session_id else None
            if principal is not None:
                scope[SESSION] = session_id
                admit_as(scope, principal)
                return receive
        return await self._authenticator.admit(scope, headers, receive)
