"""Example of an event of OBS: an object that was stored."""

from __future__ import annotations

from plugins.obs.records import created_event, event_json
from plugins.obs.store import StoredObject

_OBJECT = StoredObject(
    key="in/cat.jpg", size=51_200, etag="9a0364b9e99bb480dd25e1f0284c8555", modified_at=1_772_346_600.123
)


def example(kind: str) -> bytes:
    return event_json(created_event("photos", _OBJECT), "new-images", "local-1")
