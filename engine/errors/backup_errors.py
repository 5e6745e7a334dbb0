"""Errors of backups. The base classes are in ``engine.errors.errors``.

FunctiondError
└── BackupUnusable      the backup is missing, incomplete, damaged or of a newer engine
InvalidField
└── BadDestination      the destination of a backup is not an absolute path, or overlaps the data directory
Conflict
├── DestinationExists   the destination of a backup or restore holds something
└── BackupRuns          another backup of this engine has not ended yet
Unavailable
└── BackupFailed        the destination cannot be written, such as a full disk, or the journal has no readable functions
"""

from __future__ import annotations

from engine.errors.errors import Conflict, FunctiondError, InvalidField, Unavailable


class BackupUnusable(FunctiondError):
    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class BadDestination(InvalidField):
    def __init__(self, path: str, allowed: str) -> None:
        super().__init__("path", path, allowed)


class DestinationExists(Conflict):
    def __init__(self, path: str, advice: str) -> None:
        super().__init__(f"{path} exists already: {advice}")


class BackupRuns(Conflict):
    def __init__(self) -> None:
        super().__init__("another backup of this engine runs: wait for its end")


class BackupFailed(Unavailable):
    def __init__(
        self, path: str, problem: object, advice: str = "free space there, or choose another destination"
    ) -> None:
        shown = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
        super().__init__(f"cannot write the backup {path}: {shown}; {advice}", 60)
