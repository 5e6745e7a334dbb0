"""Metadata of topics with their ids, a request that the client library lacks (Kafka: protocol guide, Metadata 10).

Importing this module needs the client library.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_METADATA = 3
_NO_ID = bytes(16)


class _Uuid(AbstractType):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class Metadata(Response):  # type: ignore[misc]
    """Metadata with ids, not decoded yet: most replies equal the one before."""

    API_KEY, API_VERSION = _METADATA, 10

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def decode(cls, data: BytesIO) -> Metadata:
        return cls(data.read())

    @property
    def topics(self) -> Any:
        return _METADATA_10.decode(BytesIO(self.data))[-3]


_TAGS, _TEXT, _NODES = ("tags", TaggedFields), CompactString(), CompactArray(Int32)
_BROKER = ("node", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS
_REPLICAS = ("replicas", _NODES), ("in_sync", _NODES), ("offline", _NODES)
_PARTITION = ("error", Int16), ("number", Int32), ("leader", Int32), ("leader_epoch", Int32), *_REPLICAS, _TAGS
_PARTITIONS = ("partitions", CompactArray(*_PARTITION))
_TOPIC = ("error", Int16), ("name", _TEXT), ("id", _Uuid), ("internal", Boolean), _PARTITIONS, ("rights", Int32), _TAGS
_CLUSTER = ("brokers", CompactArray(*_BROKER)), ("id", _TEXT), ("controller", Int32)
_METADATA_10 = Schema(("throttle_ms", Int32), *_CLUSTER, ("topics", CompactArray(*_TOPIC)), ("rights", Int32), _TAGS)


class _MetadataWithIds(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = _METADATA, 10, Metadata, True
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _Uuid), ("name", _TEXT), _TAGS)),
        *(("create", Boolean), ("cluster_rights", Boolean), ("topic_rights", Boolean)),
        _TAGS,
    )


class MetadataOf(Request[MetadataRequest_v5 | _MetadataWithIds]):  # type: ignore[misc]
    """Request for the metadata of topics, with their ids from brokers that have them (2.8).

    ``create``: a missing topic is created if the cluster's settings let it be.
    """

    API_KEY = _METADATA

    def __init__(self, topics: Sequence[str], *, create: bool) -> None:
        self._topics, self._create = topics, create

    def build(self, version: Any) -> Any:
        if version is _MetadataWithIds:
            return version([(_NO_ID, topic, {}) for topic in self._topics], self._create, False, False, {})
        return version(list(self._topics), self._create)
