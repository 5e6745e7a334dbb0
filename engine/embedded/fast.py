"""Fast mode of engines for tests: a temporary data directory, and no sync to disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config.settings import Settings
from engine.errors import SettingsError

#: Settings of the fast mode that a program may override: nothing that the engine holds is worth a wait at its end.
_DEFAULTS = {"grace": 0.0, "storage.ballast": 0}


def fast_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a program with the defaults of the fast mode.

    Raises SettingsError if they name a data directory: the fast mode must never run on data that is kept.
    """
    if (folder := given.get("storage.data_dir")) is not None:
        raise SettingsError(
            f"storage.data_dir is {folder!r}, but the fast mode keeps nothing: leave out storage.data_dir, or fast"
        )
    return {**_DEFAULTS, **given}


@contextmanager
def temporary_data(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with a new data directory, which is deleted at the end of the block.

    A directory that a configuration file names is left alone. ``tempfile.TemporaryDirectory`` would delete the
    directory at the exit of each fork of the program, too.
    """
    folder = tempfile.mkdtemp(prefix="functiond-fast-")
    try:
        yield replace(settings, storage=replace(settings.storage, data_dir=str(Path(folder, "data"))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
