"""Tokens in the forms of the console. They show that a form was sent from one of its own pages (CSRF protection)."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from engine.auth.signing import is_same
from engine.errors import AccessDenied
from engine.http.api.routing import Call

FIELD = "form_token"  #: name of the field


class FormTokens:
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token_for(self, call: Call) -> str:
        """Return the token of the forms in the page that ``call`` requests."""
        name = call.principal.name if call.principal else ""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()

    def check(self, call: Call, token: str) -> None:
        """Raise AccessDenied unless ``token`` was made for the same reader."""
        if not is_same(token.encode(), self.token_for(call).encode()):
            raise AccessDenied("this form has expired; go back, reload the page and send it again")
