"""The vendor's SDK and the small resources of functions and projects, against an engine that is a process."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from tests.acceptance.test_sdk import Platform, create, encoded, platform, refused, urn_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # a fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


def content(event: object) -> str:
    return encoded(json.dumps(event).encode())


def save_event(platform: Platform, function: str, name: str, text: str = "") -> Any:
    body = fg.CreateEventRequestBody(name=name, content=text or content({"k": 1}))
    return platform.client.create_event(fg.CreateEventRequest(function_urn=urn_of(function), body=body))


def test_a_test_event_is_saved_shown_changed_and_deleted(platform: Platform) -> None:
    create(platform, "evented")
    urn, client = urn_of("evented"), platform.client

    event = save_event(platform, "evented", "first")
    body = fg.UpdateEventRequestBody(content=content({"k": 2}))
    changed = client.update_event(fg.UpdateEventRequest(function_urn=urn, event_id=event.id, body=body))
    shown = client.show_event(fg.ShowEventRequest(function_urn=urn, event_id=event.id))
    listed = client.list_events(fg.ListEventsRequest(function_urn=urn))
    deleted = client.delete_event(fg.DeleteEventRequest(function_urn=urn, event_id=event.id))

    assert (event.name, changed.id, shown.name, shown.content) == ("first", event.id, "first", content({"k": 2}))
    assert ([item.name for item in listed.events], listed.count) == (["first"], 1)
    assert shown.last_modified > 1e9
    assert deleted.status_code == 204
    assert client.list_events(fg.ListEventsRequest(function_urn=urn)).count == 0


def test_test_events_are_refused_as_documented(platform: Platform) -> None:
    create(platform, "eventful")
    save_event(platform, "eventful", "same")

    with refused(403, "FSS.1073"):
        save_event(platform, "eventful", "same")
    with refused(400, "FSS.1074"):
        save_event(platform, "eventful", "n" * 26)
    with refused(400, "FSS.1074"):
        save_event(platform, "eventful", "odd", encoded(b"{no json"))
    with refused(400, "FSS.1074"):
        save_event(platform, "eventful", "odd", "not base64!")
    with refused(403, "FSS.1069"):
        save_event(platform, "eventful", "large", content("x" * 4096))
    with refused(404, "FSS.1070"):
        platform.client.show_event(fg.ShowEventRequest(function_urn=urn_of("eventful"), event_id="nothing"))
    with refused(404, "FSS.1051"):
        save_event(platform, "unheard_of", "first")


def test_a_function_has_room_for_so_many_test_events(platform: Platform) -> None:
    create(platform, "fullofevents")
    for number in range(10):
        save_event(platform, "fullofevents", f"e{number}")

    with refused(403, "FSS.1068"):
        save_event(platform, "fullofevents", "e10")
