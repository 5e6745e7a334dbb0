"""Idempotency keys on disk: text by which a repeated request finds the invocation of the first one."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

from engine.errors import IdempotencyConflict
from engine.model import ContentKey, Invocation


def claim(db: sqlite3.Connection, invocation: Invocation, idempotency_key: str, retention: float) -> int | None:
    """Store only the idempotency key and return None. For a key in use, return the earlier invocation's key.

    Raises IdempotencyConflict if the earlier invocation has another payload, or a ContentKey had other content.
    """
    content = idempotency_key.content if isinstance(idempotency_key, ContentKey) else invocation.payload
    digest = blake2b(content, digest_size=16).digest()
    earlier = db.execute(
        "SELECT key, digest FROM idempotency WHERE function_id = ? AND token = ? AND expires > ?",
        (invocation.function_id, idempotency_key, invocation.expires_others_at),
    ).fetchone()
    if earlier:
        if earlier[1] != digest:
            raise IdempotencyConflict(idempotency_key)
        return int(earlier[0])
    db.execute(
        "INSERT OR REPLACE INTO idempotency (function_id, token, key, digest, expires) VALUES (?,?,?,?,?)",
        (invocation.function_id, idempotency_key, invocation.key, digest, invocation.accepted_on_clock + retention),
    )
    return None
