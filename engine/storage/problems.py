"""Problem that a check of stored data has found."""

from __future__ import annotations

from msgspec import Struct


class Problem(Struct, frozen=True, kw_only=True):
    part: str  #: part of the data, such as journal, payload, tally, cursor or code
    problem: str
    advice: str  #: next step
