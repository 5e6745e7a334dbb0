"""CloudEvents of a channel that has triggers with long lists of types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from engine.errors import InvalidField
from engine.resources import trigger_rules
from plugins._shared.push import MOST_VALUES, STEP, accept_each, decode_json
from plugins.eventgrid import plugin as eventgrid
from plugins.eventgrid.options import EventGridOptions
from plugins.eventgrid.source import EventGridService
from tests.support.triggering import api_client, house
from tests.support.work import turns_during

BATCH = {"content-type": "application/cloudevents-batch+json"}


class Compared(str):
    """Text that counts comparisons with it."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.compared += 1
        return super().__eq__(other)


def event(number: int, kind: str) -> dict[str, Any]:
    return {"id": str(number), "source": "s", "specversion": "1.0", "type": kind}


def test_an_event_is_not_compared_with_each_of_a_trigger_s_types() -> None:
    sink: Any = None
    service = EventGridService(None)
    options = EventGridOptions(channel_id="c", event_types=tuple(f"t{number}" for number in range(30_000)))

    with service.subscribed(options, sink):
        [subscriber] = service._subscribers
        wanted = [subscriber.wants(event(1, Compared(kind))) for kind in ("t29999", "other")]

    assert wanted == [True, False]
    assert Compared.compared < 10


async def test_events_that_no_trigger_wants_leave_the_loop_to_others_in_between() -> None:
    accepted, turns = await turns_during(accept_each(None for _ in range(50 * STEP)))

    assert (accepted, turns >= 45) == (0, True)


@pytest.mark.parametrize("body", [b"[" + b"[]," * MOST_VALUES + b"0]", b"[" + b'{"a":0},' * MOST_VALUES + b"0]"])
def test_a_body_of_tiny_values_is_refused_before_it_is_decoded(body: bytes) -> None:
    with pytest.raises(InvalidField, match="too many values: send several smaller bodies"):
        decode_json(body)


def test_a_large_body_of_ordinary_values_is_decoded() -> None:
    body = msgspec.json.encode([event(number, "t" * 500) for number in range(9_000)])

    assert len(decode_json(body)) == 9_000


#: Values of a header in binary mode, with the text of the attribute; None: refused.
VALUES: dict[str, tuple[bytes, str | None]] = {
    "percent-encoded": (b"Euro%20%e2%82%AC%20%F0%9F%98%80%25", "Euro \u20ac \U0001f600%"),
    "raw UTF-8": ("h\u00e9 \u20ac %41".encode(), "h\u00e9 \u20ac A"),
    "raw latin-1": (b"h\xe9 %C3%A9", "h\u00e9 \u00e9"),
    "quoted": (rb'"a \"b\" \\ %22"', 'a "b" \\ "'),
    "a quote alone": (b'"a', '"a'),
    "a surrogate": (b"%ED%A0%80", None),
    "too long a form": (b"%C0%A0", None),
    "half a character": (b"a%E2%82", None),
}


@pytest.mark.parametrize(("value", "text"), VALUES.values(), ids=VALUES)
async def test_an_attribute_is_the_decoded_header(tmp_path: Path, value: bytes, text: str | None) -> None:
    sent = [
        (b"ce-subject", value),
        *((b"ce-%b" % name, b"1.0") for name in (b"id", b"source", b"specversion", b"type")),
    ]
    async with house(tmp_path, [eventgrid]) as place, api_client(place) as client:
        await place.create("EVENTGRID", channel_id="c")
        reply = await client.post("/triggers/eventgrid/c", headers=sent)

        assert reply.status_code == (400 if text is None else 202), reply.text
        assert [event["subject"] for event in await place.events()] == ([] if text is None else [text])


async def test_events_of_the_sdk_arrive_as_it_made_them(tmp_path: Path) -> None:
    attributes = {"id": "\u20ac %", "source": "/s h", "type": "t", "specversion": "1.0", "note": 'a "b"'}
    made = [
        CloudEvent({**attributes, "datacontenttype": "application/json"}, {"a": ["\u20ac"]}),
        CloudEvent({**attributes, "id": "2", "datacontenttype": "text/plain; charset=utf-8", "subject": "x"}, "text"),
    ]
    async with house(tmp_path, [eventgrid]) as place, api_client(place) as client:
        for channel, write in (("b", to_binary_event), ("s", to_structured_event)):
            await place.create("EVENTGRID", channel_id=channel)
            for message in map(write, made):
                await client.post(f"/triggers/eventgrid/{channel}", headers=message.headers, content=message.body)
        arrived = [
            from_structured_event(
                HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(sent).encode())
            )
            for sent in await place.events()
        ]

    parts = [(event.get_attributes(), event.get_data()) for event in arrived]
    assert parts == [(event.get_attributes(), event.get_data()) for event in made] * 2


async def test_a_trigger_that_was_stored_too_wide_goes_on_and_its_state_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(trigger_rules, "ENTRIES", 30_000)
        async with house(tmp_path, [eventgrid]) as place:
            trigger = await place.create("EVENTGRID", channel_id="c", event_types=[f"t{n}" for n in range(30_000)])

    async with house(tmp_path, [eventgrid]) as place, api_client(place) as client:
        reply = await client.post("/triggers/eventgrid/c", json=[event(1, "t29999")], headers=BATCH)

        assert (reply.status_code, reply.json()) == (202, {"accepted": 1})
        problem = place.state(trigger).problem
        assert problem.startswith("it goes on, but event_data.event_types is")
        assert "make several triggers" in problem
