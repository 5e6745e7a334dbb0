"""What can go wrong with an object in a store: branches of the tree in ``engine.errors.errors``.

InvalidField
└── BadLink             no store could have such an object
NotFound
└── ObjectMissing       the store has no such object or bucket
Forbidden
└── StoreRefused        it does not let this engine in
Unavailable
└── StoreUnavailable    it does not answer, or not in time
"""

from __future__ import annotations

from engine.errors.errors import Forbidden, InvalidField, NotFound, Unavailable


class BadLink(InvalidField):
    """A link to an object that no store could have."""

    def __init__(self, link: str, allowed: str, field: str = "code_url") -> None:
        self.link = link
        super().__init__(field, link, allowed)


class ObjectMissing(NotFound):
    def __init__(self, bucket: str, key: str, missing: str = "object") -> None:
        place = f"bucket {bucket}, key {key}" if key else f"bucket {bucket}"
        super().__init__(f"the object store has no such {missing}: {place}")


class StoreRefused(Forbidden):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store refuses this engine: {problem}")


class StoreUnavailable(Unavailable):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store: {problem}", retry_after=5)
