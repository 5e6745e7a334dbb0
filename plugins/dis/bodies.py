"""Bodies and queries of requests to the streams that the engine serves itself, as the vendor's SDK sends them.

The SDK is huaweicloudsdkdis v2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from plugins.dis.access import CursorType, Entry
from plugins.dis.streams import MOST_PARTITIONS

StreamName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
AppName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,200}\Z")]
Hours = Annotated[int, Meta(ge=24, le=72)]
Count = Annotated[int, Meta(ge=1, le=MOST_PARTITIONS)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
Text = Annotated[str, Meta(max_length=1024)]
CheckpointType = Literal["LAST_READ"]
DataType = Literal["BLOB", "JSON", "CSV", "FILE"]


class CreateStream(Struct, frozen=True, kw_only=True):
    stream_name: StreamName
    partition_count: Count
    stream_type: Literal["COMMON", "ADVANCED"] | None = None
    data_type: DataType | None = None
    data_duration: Hours | None = None


class UpdateStream(Struct, frozen=True, kw_only=True):
    data_duration: Hours | None = None
    data_type: DataType | None = None


class ScaleStream(Struct, frozen=True, kw_only=True):
    target_partition_count: Count


class PutRecords(Struct, frozen=True, kw_only=True):
    #: at most 10,000: as many small records as a body can hold (250,000) would delay other requests
    records: Annotated[list[Entry], Meta(min_length=1, max_length=10_000)]
    stream_name: str | None = None
    stream_id: str | None = None


class CreateApp(Struct, frozen=True, kw_only=True):
    app_name: AppName


class CommitCheckpoint(Struct, frozen=True, kw_only=True):
    app_name: AppName
    stream_name: StreamName
    partition_id: Text
    sequence_number: Annotated[str, Meta(pattern=r"^[0-9]{1,18}\Z")]
    checkpoint_type: CheckpointType = "LAST_READ"
    metadata: Annotated[str, Meta(max_length=1000)] | None = None


class ListStreams(Struct, frozen=True, kw_only=True):
    limit: PageSize = 10
    start_stream_name: Text = ""


class ListApps(Struct, frozen=True, kw_only=True):
    limit: PageSize = 10
    start_app_name: Text = ""
    stream_name: Text = ""


class ShowStream(Struct, frozen=True, kw_only=True, rename={"start_partition_id": "start_partitionId"}):
    limit_partitions: Annotated[int, Meta(ge=1, le=1000)] = 100
    start_partition_id: Text = ""


class ShowConsumer(Struct, frozen=True, kw_only=True):
    checkpoint_type: CheckpointType = "LAST_READ"
    limit: PageSize = 100
    start_partition_id: Text = ""


class ShowCursor(Struct, frozen=True, kw_only=True, rename="kebab"):
    stream_name: StreamName
    partition_id: Text
    cursor_type: CursorType = "AT_SEQUENCE_NUMBER"
    starting_sequence_number: Text = ""
    timestamp: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


class GetRecords(Struct, frozen=True, kw_only=True, rename={"partition_cursor": "partition-cursor"}):
    partition_cursor: Text
    max_fetch_bytes: Annotated[int, Meta(ge=1)] = 1 << 20


class NameCheckpoint(Struct, frozen=True, kw_only=True):
    app_name: AppName
    stream_name: StreamName
    partition_id: Text = ""
    checkpoint_type: CheckpointType = "LAST_READ"
