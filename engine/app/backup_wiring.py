"""Backups of an engine's data directory, as its settings describe them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from engine import __version__
from engine.app.parts import EngineParts
from engine.config.settings import Settings
from engine.maintenance.backup import Backups, CopyStorage
from engine.model.clock import Clock
from engine.storage.data_directory import BACKUPS

log = structlog.get_logger("functiond")


def note_needs(engine: EngineParts) -> None:
    """Log what backups need that earlier versions made without it."""
    if not engine.settings.storage.backup_dir:
        elsewhere = "to make them elsewhere, set storage.backup_dir to that folder, such as /var/backups/functiond"
        log.info("backups are made in the data directory", next_step=elsewhere)
    if engine.authenticator is not None and not engine.authenticator.principals.operated:
        log.warning("no credential may make backups or accept the clock", next_step='add one with role = "operator"')


def keys_of(settings: Settings) -> Mapping[str, Path]:
    """Return the files with credentials and keys that the settings name, by the names that they get in a backup."""
    files = {
        "credentials.toml": settings.auth.file,
        "tls_certificate.pem": settings.http.tls_certificate,
        "tls_key.pem": settings.http.tls_key,
    }
    return {name: Path(file) for name, file in files.items() if file}


def backups_of(settings: Settings, copy_storage: CopyStorage, clock: Clock, *, anywhere: bool = False) -> Backups:
    """Return the maker of backups. ``copy_storage`` copies the storage of the settings' data directory.

    Backups are made below the folder of the settings, or ``anywhere``.
    """
    storage = settings.storage
    return Backups(
        storage.path,
        copy_storage,
        below=None if anywhere else Path(storage.backup_dir or storage.path / BACKUPS).absolute(),
        keep_free=storage.free_space,
        clock=clock,
        version=__version__,
    )
