"""Errors of object stores, from which code packages are read. The base classes are in ``engine.errors.errors``.

InvalidField
└── BadLink             the link names no object of any store
NotFound
└── ObjectMissing       the store has no such object or bucket
Forbidden
└── StoreRefused        the store denied access
Unavailable
└── StoreUnavailable    the store cannot be reached, or gave no usable answer in time
"""

from __future__ import annotations

from engine.errors.errors import Forbidden, InvalidField, NotFound, Unavailable


class BadLink(InvalidField):
    """Link to a code package that is malformed or names no object of an object store."""

    def __init__(self, link: str, allowed: str, field: str = "code_url") -> None:
        self.link = link
        super().__init__(field, link, allowed)


class ObjectMissing(NotFound):
    def __init__(self, bucket: str, key: str, missing: str = "object") -> None:
        location = f"bucket {bucket}, key {key}" if key else f"bucket {bucket}"
        super().__init__(f"the object store has no such {missing}: {location}")


class StoreRefused(Forbidden):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store refuses this engine: {problem}")


class StoreUnavailable(Unavailable):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store: {problem}", retry_after=5)
