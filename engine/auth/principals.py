"""Identities of the configured access keys and tokens, found by token, by access key, or by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from engine.auth.credentials import AccessKey, Token
from engine.auth.roles import Principal
from engine.auth.signing import is_same

_NO_SECRET = hashlib.sha256(b"").digest()  # no access key has an empty secret


class Principals:
    """Present credentials of an engine."""

    def __init__(self, keys: Sequence[AccessKey], tokens: Sequence[Token]) -> None:
        projects = {one.project for one in (*keys, *tokens) if one.project}
        self.several = len(projects) > 1  #: credentials name several projects
        self._keys = {key.access: self._key_principal(key) for key in keys}
        # Keyed by hash, so that the time of a lookup reveals nothing about the tokens.
        self._tokens = {_digest(one.token.encode()): self._token_principal(one) for one in tokens}
        # No access key has a space, so none has the name of a token.
        self._named = {one.name: one for one in (*self._keys.values(), *self._tokens.values())}
        self.operated = any(one.operates for one in self._named.values())

    def of_token(self, token: bytes) -> Principal | None:
        return self._tokens.get(_digest(token))

    def of_access(self, access: str) -> Principal | None:
        return self._keys.get(access)

    def of_secret(self, access: str, secret: bytes, token: bytes) -> Principal | None:
        """Return the principal of an access key, if secret key and security token are those of the key.

        ``token`` is empty for a key without one. The time of the call does not reveal which of them is wrong.
        """
        key = self._keys.get(access)
        expected = _digest(key.secret) if key else _NO_SECRET
        same_secret = is_same(_digest(secret), expected)
        same_token = is_same(_digest(token), _digest((key.token if key else None) or b""))
        return key if same_secret and same_token else None

    def named(self, name: str) -> Principal | None:
        """Return the principal with a name, as logs and traces show it."""
        return self._named.get(name)

    def _key_principal(self, key: AccessKey) -> Principal:
        token = key.token.encode() if key.token is not None else None
        return self._principal(key.access, key, secret=key.secret.encode(), token=token)

    def _token_principal(self, one: Token) -> Principal:
        digest = _digest(one.token.encode())
        return self._principal(f"token {digest.hex()[:12]}", one, secret=digest)

    def _principal(
        self, name: str, given: AccessKey | Token, *, secret: bytes, token: bytes | None = None
    ) -> Principal:
        return Principal(
            name=name,
            project=given.project,
            prefix=f"/v2/{given.project}/" if given.project else "/",
            expires=given.expires.timestamp() if given.expires else math.inf,
            role=given.role,
            operates=given.role == "operator" or (given.role == "admin" and not self.several),
            payloads=given.payloads,
            secret=secret,
            token=token,
        )


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
