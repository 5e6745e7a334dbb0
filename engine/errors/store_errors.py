"""Errors of object stores: branches of the tree in ``engine.errors.errors``.

InvalidField
└── BadLink             link that no store can resolve
NotFound
└── ObjectMissing       no such object or bucket in the store
Forbidden
└── StoreRefused        access denied by the store
Unavailable
└── StoreUnavailable    no answer from the store, or none in time
"""

from __future__ import annotations

from engine.errors.errors import Forbidden, InvalidField, NotFound, Unavailable


class BadLink(InvalidField):
    """Link that does not name an object of any store."""

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
