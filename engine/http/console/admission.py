"""Authentication of requests for pages of the console: by the session of the reader, else as in the API.

The session decides only for paths of the console. Its cookie gives no access to the API.
"""

from __future__ import annotations

from engine.asgi.wire import Headers, Receive, Scope
from engine.http.auth import Authenticator, admit_as
from engine.http.console.cookies import read_cookie, session_cookie
from engine.http.console.paths import is_page
from engine.http.console.sessions import SESSION, Sessions


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
