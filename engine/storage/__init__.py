"""Storage of invocations, functions, resources and plugin tables."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from engine.protocols import Storage
from engine.storage.sqlite.checks import Problem, find_problems
from engine.storage.sqlite.database import StorageOptions, open_sqlite
from engine.storage.sqlite.encryption import NEXT, locked_names
from engine.storage.sqlite.offline import copy_offline, damaged_page, is_copy, journal_name, packages_in
from engine.storage.sqlite.recovery import DamagedJournal, Loss, put_in_place

__all__ = [
    "NEXT",
    "DamagedJournal",
    "Loss",
    "Problem",
    "StorageOptions",
    "copy_offline",
    "damaged_page",
    "find_problems",
    "is_copy",
    "journal_name",
    "locked_names",
    "open_storage",
    "packages_in",
    "put_in_place",
]


def open_storage(options: StorageOptions, *, packages_of: str | None = None) -> AbstractAsyncContextManager[Storage]:
    """Open the storage of an engine whose data directory the caller has ``locked``.

    ``packages_of`` is the journal's name stored with the code packages; None means that there are no packages.

    The storage is usable inside the block. At the end of the block, calls raise ShuttingDown, and the block ends when
    all writes submitted before are on disk. If writes fail then, they are refused, and ``start`` and ``settle`` are
    dropped: the next engine runs these invocations again. The block also ends, with JournalBroken, after a failure
    that only a restart can cure.

    Raises DataDirectoryUnusable if the storage cannot be opened, was written by a newer schema, belongs to another
    program, or does not belong to the code packages.
    """
    return open_sqlite(options, packages_of=packages_of)
