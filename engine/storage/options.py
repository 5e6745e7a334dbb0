"""Settings of a storage."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class StorageOptions(Struct, frozen=True, kw_only=True):
    directory: Path  #: data directory
    idempotency_retention: float = 86_400.0  #: seconds for which idempotency keys are stored
    ballast: int = 0  #: bytes of the ballast file; 0: none
    durable: bool = True  #: False: a commit is not synced to disk
