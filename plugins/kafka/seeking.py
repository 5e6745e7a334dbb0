"""Positions that users set: cursors from which a trigger's partitions are read next."""

from __future__ import annotations

from collections.abc import Mapping

from engine import InvalidField
from plugins.kafka.offsets import PartitionOffset, decode_offsets, encode_offset
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions, milliseconds

LATER = 1 << 62  #: time after all records, in milliseconds
_ENDS = {"earliest": 0, "latest": LATER}


def seek(
    options: KafkaOptions | OpenKafkaOptions, cursors: Mapping[str, bytes], positions: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the cursors for positions by topic or partition: an offset, ``earliest``, ``latest`` or a time.

    Raises InvalidField for a position that is none of these, and for a partition that the trigger has never read.
    """
    known = decode_offsets(cursors, options.cluster)
    found: dict[str, bytes] = {}
    for name, text in positions.items():
        partitions = [one for one in known if name in (one, one.rpartition("/")[0])]
        if not partitions:
            have = ", ".join(sorted(known)[:20]) or "none: enable it first"
            raise InvalidField("positions", name, f"must be a topic or partition that the trigger has read ({have})")
        found |= dict.fromkeys(partitions, encode_offset(_position(options.cluster, text)))
    return found


def _position(cluster: str, text: str) -> PartitionOffset:
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return PartitionOffset(cluster=cluster, offset=int(text), sought=True)
    at = _ENDS[text] if text in _ENDS else milliseconds("positions", text)
    return PartitionOffset(cluster=cluster, offset=-1, at=at, sought=True)
