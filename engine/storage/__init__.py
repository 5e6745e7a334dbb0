"""Storage of invocations, functions, resources and plugin tables."""

from __future__ import annotations

from engine.storage.sqlite.checks import Problem, find_problems
from engine.storage.sqlite.database import StorageOptions, open_storage
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
