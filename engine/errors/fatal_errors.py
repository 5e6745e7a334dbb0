"""Failures that end a running engine. The next start recovers its work from the storage."""

from __future__ import annotations


class JournalBroken(Exception):
    """Failure after which stored and lost rows cannot be distinguished until a restart reads the storage again."""


class MembershipLost(Exception):
    """Another engine may do the work of this engine, which must therefore stop."""

    def __init__(self) -> None:
        super().__init__("this engine lost its membership in the cluster: another engine does its work")
