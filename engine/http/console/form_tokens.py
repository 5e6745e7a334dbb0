"""Tokens in the forms of the console. They show that a form was sent from one of its own pages (CSRF protection).

A token belongs to the session of the reader, and ends with it. Without a session, it belongs to the name of the
credentials; ``http/guard`` then refuses forms of other pages as well. Both survive a restart of the engine.
"""

from __future__ import annotations

import hashlib
import hmac

from engine.auth.signing import is_same
from engine.errors import AccessDenied
from engine.http.api.routing import Call
from engine.http.console.sessions import SESSION

FIELD = "form_token"  #: name of the field


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
        if not is_same(token.encode(), self.token_for(call).encode()):
            raise AccessDenied("this form has expired; go back, reload the page and send it again")
