"""Vendor's SDK for DIS, unmodified, with the streams of an engine process."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import engine_on, to, until
from tests.acceptance.sdk import SDK_WARNINGS, ClientRequestException, dis, encoded, refused, send
from tests.acceptance.two_keys import SECRET, Guarded, guarded

#: Writes each received record to a file.
NOTE = """
import base64, json
def handler(event, context):
    with open({path!r}, 'a') as file:
        for record in event['Message']['records']:
            file.write(base64.b64decode(record['data']).decode() + chr(10))
"""

OFTEN = {"polling_interval": 10, "polling_unit": "ms"}

pytestmark = SDK_WARNINGS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Run one engine for all tests; each test uses its own streams."""
    with guarded(tmp_path_factory.mktemp("dis"), dis.DisClient) as made:
        yield made


ask = partial(send, models=dis)


def create(client: Any, name: str, partitions: int = 1) -> None:
    ask(client, "CreateStream", stream_name=name, partition_count=partitions, data_duration=24)


def put(client: Any, *texts: str, name: str) -> Any:
    records = [dis.PutRecordsRequestEntry(data=encoded(text.encode()), partition_key=text) for text in texts]
    return ask(client, "SendRecords", stream_name=name, records=records)


def texts(client: Any, name: str, part: str = "shardId-0000000000", **cursor: str) -> list[str]:
    """Return the data of all records from the cursor on, read in pages of 1024 bytes."""
    asked = cursor or {"cursor_type": "TRIM_HORIZON"}
    place = ask(client, "ShowCursor", stream_name=name, partition_id=part, **asked).partition_cursor
    records = list[str]()
    while True:
        page = ask(client, "ConsumeRecords", partition_cursor=place, max_fetch_bytes=1024)
        if not page.records:
            return records
        records += [base64.b64decode(record.data).decode() for record in page.records]
        place = page.next_partition_cursor


def test_what_the_sdk_put_is_there_after_the_engine_was_killed(service: Guarded) -> None:
    client = service.client()
    create(client, "kept")
    reply = put(client, *map(str, range(100)), name="kept")
    service.engine.kill()
    service.engine.start()
    client = service.client()

    assert reply.failed_record_count == 0
    assert [record.sequence_number for record in reply.records] == [str(number) for number in range(100)]
    assert texts(client, "kept") == [str(number) for number in range(100)]
    assert texts(client, "kept", cursor_type="AFTER_SEQUENCE_NUMBER", starting_sequence_number="97") == ["98", "99"]
    assert put(client, "next", name="kept").records[0].sequence_number == "100"


def test_the_sdk_shows_lists_scales_and_deletes_streams(service: Guarded) -> None:
    client = service.client()
    create(client, "shown", partitions=2)
    ask(client, "UpdatePartitionCount", stream_name="shown", target_partition_count=3)
    ask(client, "UpdateStream", stream_name="shown", data_duration=48)
    shown = ask(client, "ShowStream", stream_name="shown")
    page = ask(client, "ShowStream", stream_name="shown", limit_partitions=1)
    listed = ask(client, "ListStreams")
    ask(client, "DeleteStream", stream_name="shown")

    assert [part.status for part in shown.partitions] == ["DELETED", "ACTIVE", "ACTIVE", "ACTIVE"]
    assert (shown.status, shown.retention_period, shown.writable_partition_count) == ("RUNNING", 48, 3)
    assert shown.partitions[2].parent_partitions == "(shardId-0000000000)"
    assert (len(page.partitions), page.has_more_partitions) == (1, True)
    assert "shown" in listed.stream_names
    with refused(400, "DIS.4301"):
        ask(client, "ShowStream", stream_name="shown")


def test_the_sdk_keeps_checkpoints(service: Guarded) -> None:
    client = service.client()
    create(client, "read")
    put(client, "a", "b", name="read")
    reader = {"app_name": "reader"}
    ask(client, "CreateApp", **reader)
    read = {**reader, "stream_name": "read", "checkpoint_type": "LAST_READ"}
    place = {**read, "partition_id": "shardId-0000000000"}
    ask(client, "CommitCheckpoint", **place, sequence_number="1", metadata="m")
    kept = ask(client, "ShowCheckpoint", **place)
    [state] = ask(client, "ShowConsumerState", **read).partition_consuming_states
    apps = ask(client, "ListApp").apps
    ask(client, "DeleteCheckpoint", **place)
    ask(client, "DeleteApp", **reader)

    assert (kept.sequence_number, kept.metadata) == ("1", "m")
    assert (state.sequence_number, state.earliest_offset, state.latest_offset) == ("1", 0, 2)
    assert [(app.app_name, app.commit_checkpoint_stream_names) for app in apps] == [("reader", ["read"])]


def test_only_the_keys_of_a_project_reach_its_streams(service: Guarded) -> None:
    create(service.client(), "mine")

    for client, status in ((service.client(secret="wrong"), 401), (service.client(access="AK2"), 403)):
        with pytest.raises(ClientRequestException) as problem:
            ask(client, "ListStreams")
        assert problem.value.status_code == status
    assert ask(service.client(access="AK2", project="another"), "ListStreams").stream_names == []


def test_records_call_a_function_elsewhere_and_outcomes_come_back_as_records(service: Guarded, tmp_path: Path) -> None:
    client, path = service.client(), tmp_path / "noted"
    create(client, "clicks", partitions=2)
    create(client, "outcomes")
    put(client, "a", "b", name="clicks")
    settings = {
        "FUNCTIOND_PLUGINS__DIS__ENDPOINT": service.engine.url,
        "FUNCTIOND_PLUGINS__DIS__ACCESS_KEY": "AK1",
        "FUNCTIOND_PLUGINS__DIS__SECRET_KEY": SECRET,
    }
    with engine_on(tmp_path / "consumer", **settings) as consumer:
        consumer.create("note", NOTE.format(path=str(path)))
        consumer.configure("note", destination_config={"on_success": to("DIS", stream_name="outcomes")})
        options = {
            "stream_name": "clicks",
            "sharditerator_type": "TRIM_HORIZON",
            **OFTEN,
            "is_serial": "true",
        }
        consumer.trigger("note", "DIS", options)
        put(client, "c", name="clicks")
        outcomes = until(lambda: carried(found := list(map(json.loads, texts(client, "outcomes")))) >= 3 and found)

    assert sorted(path.read_text().split()) == ["a", "b", "c"]
    assert {outcome["response_context"]["status_code"] for outcome in outcomes} == {200}


def carried(outcomes: list[Any]) -> int:
    """Count the records that the outcomes' requests carried."""
    return sum(len(json.loads(outcome["request_payload"])["Message"]["records"]) for outcome in outcomes)
