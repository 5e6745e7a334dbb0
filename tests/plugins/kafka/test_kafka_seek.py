"""Positions of Kafka triggers that users set. No broker is needed."""

from __future__ import annotations

import msgspec
import pytest

from engine import InvalidField
from plugins.kafka.offsets import LATER, PartitionOffset, decode_offsets, seek
from plugins.kafka.options import OpenKafkaOptions

OPTIONS = OpenKafkaOptions(kafka_connect_address="a:1", topic_ids=("orders", "a/b"), batch_size=1)
KNOWN = {
    name: msgspec.json.encode(PartitionOffset(cluster=cluster, offset=9))
    for name, cluster in (("orders/0", "a:1"), ("orders/1", "a:1"), ("a/b/0", "a:1"), ("old/0", "b:1"))
}


def sought(offset: int = -1, at: int | None = None) -> PartitionOffset:
    return PartitionOffset(cluster="a:1", sought=True, offset=offset, at=at)


def test_positions_are_set_by_partition_or_for_a_whole_topic() -> None:
    cursors = seek(OPTIONS, KNOWN, {"orders/1": "1200", "a/b": "1970-01-01T00:00:02Z"})

    assert decode_offsets(cursors, "a:1") == {"orders/1": sought(offset=1200), "a/b/0": sought(at=2000)}


def test_a_topic_is_set_to_its_ends_and_one_partition_otherwise() -> None:
    offsets = decode_offsets(seek(OPTIONS, KNOWN, {"orders": "earliest", "orders/1": "latest"}), "a:1")

    assert offsets == {"orders/0": sought(at=0), "orders/1": sought(at=LATER)}


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ({"orders/2": "5"}, r"a topic or partition that the trigger has read \(a/b/0, orders/0, orders/1\)"),
        ({"old": "5"}, "a topic or partition that the trigger has read"),
        ({"orders/0": "-1"}, "earliest, latest, or a time"),
        ({"orders/0": "9" * 30}, "earliest, latest, or a time"),
        ({"orders/0": "soon"}, "earliest, latest, or a time"),
    ],
)
def test_a_position_that_cannot_be_set_is_refused(positions: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidField, match=text):
        seek(OPTIONS, KNOWN, positions)
