"""Backups of an engine's data directory, as its settings describe them."""

from __future__ import annotations

from pathlib import Path

from engine import __version__
from engine.config.settings import Settings
from engine.maintenance.backup import Backups, CopyStorage
from engine.model.clock import Clock


def backups_of(settings: Settings, copy_storage: CopyStorage, clock: Clock) -> Backups:
    """Return the maker of backups. ``copy_storage`` copies the storage of the settings' data directory."""
    files = {
        "credentials.toml": settings.auth.file,
        "tls_certificate.pem": settings.http.tls_certificate,
        "tls_key.pem": settings.http.tls_key,
    }
    return Backups(
        settings.storage.path,
        copy_storage,
        keys={name: Path(file) for name, file in files.items() if file},
        keep_free=settings.storage.free_space,
        clock=clock,
        version=__version__,
    )
