"""API of the streams that the engine serves itself, at the vendor's paths: streams, records, cursors and apps.

Bodies and queries are those that the vendor's SDK sends (huaweicloudsdkdis v2). Refusals have the vendor's error codes.
Other operations of the vendor's API (dump tasks, tags, policies, metrics) are answered with 404, or with 405 at a path
that has operations.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer, Table
from plugins.dis.access import CursorType, Entry, Record, Start
from plugins.dis.apps import Apps, Checkpoint
from plugins.dis.problems import BAD_REQUEST, DisProblem
from plugins.dis.shape import Partition, Stream
from plugins.dis.streams import MOST_PARTITIONS, Streams

OTHERS = ("v2/stream",)  #: heads of paths without operations
#: Bytes of a body: the largest permitted records in base64, and the other fields.
LIMIT = 10 << 20
MOST_FETCHED = 10 << 20  #: bytes of records in one answer

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


class DisApi:
    def __init__(self, streams: Streams, apps: Apps) -> None:
        self._streams, self._apps = streams, apps
        stream, app = "streams {stream_name}", "apps {app_name}"
        self.table = Table(
            {
                "POST v2 streams": Offer(self._create, "DisCreateStream", body=CreateStream, status=201),
                "GET v2 streams": Offer(self._list, "DisListStreams", query=ListStreams, roles=READ),
                f"GET v2 {stream}": Offer(self._show, "DisDescribeStream", query=ShowStream, roles=READ),
                f"PUT v2 {stream}": Offer(self._scale, "DisUpdatePartitionCount", body=ScaleStream),
                f"PUT v3 {stream}": Offer(self._update, "DisUpdateStream", body=UpdateStream),
                f"DELETE v2 {stream}": Offer(self._delete, "DisDeleteStream", status=204),
                "POST v2 records": Offer(self._put, "DisSendRecords", body=PutRecords, roles=INVOKE, data=True),
                "GET v2 records": Offer(
                    self._get, "DisConsumeRecords", query=GetRecords, roles=READ, payloads=True, data=True
                ),
                "GET v2 cursors": Offer(self._cursor, "DisShowCursor", query=ShowCursor, roles=READ),
                "POST v2 apps": Offer(self._create_app, "DisCreateApp", body=CreateApp, status=201),
                "GET v2 apps": Offer(self._list_apps, "DisListApps", query=ListApps, roles=READ),
                f"GET v2 {app}": Offer(self._show_app, "DisDescribeApp", roles=READ),
                f"DELETE v2 {app}": Offer(self._delete_app, "DisDeleteApp", status=204),
                f"GET v2 {app} {stream}": Offer(self._progress, "DisShowConsumerState", query=ShowConsumer, roles=READ),
                "POST v2 checkpoints": Offer(
                    self._commit, "DisCommitCheckpoint", body=CommitCheckpoint, status=201, data=True
                ),
                "GET v2 checkpoints": Offer(self._checkpoint, "DisShowCheckpoint", query=NameCheckpoint, roles=READ),
                "DELETE v2 checkpoints": Offer(
                    self._forget, "DisDeleteCheckpoint", query=NameCheckpoint, status=204, data=True
                ),
            },
            _refuse,
            lambda problem: DisProblem(BAD_REQUEST, f"Request error. {problem}"),
        )

    # --- streams --------------------------------------------------------------------------------------------

    async def _create(self, call: Call, body: CreateStream) -> Answer:
        await self._streams.create(
            call.project,
            body.stream_name,
            partitions=body.partition_count,
            retention=body.data_duration or 24,
            stream_type=body.stream_type or "COMMON",
            data_type=body.data_type or "BLOB",
        )
        return 201, {}

    async def _list(self, call: Call, query: ListStreams) -> Answer:
        names = self._streams.names(call.project)
        following = [name for name in names if name > query.start_stream_name]
        page = following[: query.limit]
        return 200, {
            "total_number": len(names),
            "stream_names": page,
            "has_more_streams": len(page) < len(following),
            "stream_info_list": [_info(self._streams.find(call.project, name)) for name in page],
        }

    async def _show(self, call: Call, name: str, query: ShowStream) -> Answer:
        stream = self._streams.find(call.project, name)
        following = [partition for partition in stream.partitions if partition.id > query.start_partition_id]
        page = following[: query.limit_partitions]
        return 200, {
            **_info(stream),
            "stream_id": stream.stream_id,
            "last_modified_time": int(stream.modified_at * 1000),
            "partitions": [self._partition(stream, partition) for partition in page],
            "has_more_partitions": len(page) < len(following),
            "writable_partition_count": len(stream.open),
            "readable_partition_count": sum(
                not self._streams.expired(stream, partition) for partition in stream.partitions
            ),
        }

    async def _scale(self, call: Call, name: str, body: ScaleStream) -> Answer:
        target = body.target_partition_count
        before = await self._streams.scale(call.project, name, target)
        return 200, {"stream_name": name, "current_partition_count": before, "target_partition_count": target}

    async def _update(self, call: Call, name: str, body: UpdateStream) -> Answer:
        await self._streams.change(call.project, name, retention=body.data_duration, data_type=body.data_type)
        return 200, {}

    async def _delete(self, call: Call, name: str) -> Answer:
        await self._streams.delete(call.project, name)
        return 204, None

    # --- records --------------------------------------------------------------------------------------------

    async def _put(self, call: Call, body: PutRecords) -> Answer:
        await asyncio.sleep(0)  # many records take long: other requests are served between two steps
        name = self._streams.by_id(call.project, body.stream_id).name if body.stream_id else body.stream_name or ""
        results = await self._streams.put(call.project, name, body.records)
        await asyncio.sleep(0)
        return 200, {"failed_record_count": sum(bool(result.error_code) for result in results), "records": results}

    async def _cursor(self, call: Call, query: ShowCursor) -> Answer:
        start = Start(type=query.cursor_type, sequence_number=query.starting_sequence_number, timestamp=query.timestamp)
        cursor = await self._streams.cursor(call.project, query.stream_name, query.partition_id, start)
        return 200, {"partition_cursor": cursor}

    async def _get(self, call: Call, query: GetRecords) -> Answer:
        most = min(query.max_fetch_bytes, MOST_FETCHED)
        page = await self._streams.read(call.project, query.partition_cursor, most)
        return 200, {
            "records": [_record(record) for record in page.records],
            "next_partition_cursor": page.next_partition_cursor,
        }

    # --- apps -----------------------------------------------------------------------------------------------

    async def _create_app(self, call: Call, body: CreateApp) -> Answer:
        await self._apps.create(call.project, body.app_name)
        return 201, {}

    async def _list_apps(self, call: Call, query: ListApps) -> Answer:
        names = await self._apps.names(call.project, query.start_app_name)
        apps = [await self._app(call.project, name) for name in names]
        if query.stream_name:
            apps = [app for app in apps if query.stream_name in app["commit_checkpoint_stream_names"]]
        page = apps[: query.limit]
        return 200, {"has_more_app": len(page) < len(apps), "apps": page, "total_number": len(apps)}

    async def _show_app(self, call: Call, name: str) -> Answer:
        return 200, await self._app(call.project, name)

    async def _delete_app(self, call: Call, name: str) -> Answer:
        await self._apps.delete(call.project, name)
        return 204, None

    async def _progress(self, call: Call, name: str, stream_name: str, query: ShowConsumer) -> Answer:
        """Return the progress of an app: the position of its checkpoint in each partition of a stream."""
        app, stream = await self._apps.find(call.project, name), self._streams.find(call.project, stream_name)
        following = [partition for partition in stream.partitions if partition.id > query.start_partition_id]
        states = []
        for partition in following[: query.limit]:
            first, next_ = self._streams.span(stream, partition)
            checkpoint = app.checkpoints.get(stream.stream_id, {}).get(partition.id)
            state = {
                "partition_id": partition.id,
                "sequence_number": checkpoint.sequence_number if checkpoint else "-1",
                "latest_offset": next_,
                "earliest_offset": first,
                "checkpoint_type": query.checkpoint_type,
                "status": "ACTIVE" if partition.open else "DELETED",
            }
            states.append(state)
        more = len(states) < len(following)
        body = {"stream_name": stream_name, "app_name": name, "has_more": more, "partition_consuming_states": states}
        return 200, body

    async def _commit(self, call: Call, body: CommitCheckpoint) -> Answer:
        stream_id, part = self._find(call.project, body.stream_name, body.partition_id)
        checkpoint = Checkpoint(sequence_number=body.sequence_number, metadata=body.metadata or "")
        await self._apps.commit(call.project, body.app_name, stream_id, part, checkpoint)
        return 201, {}

    async def _checkpoint(self, call: Call, query: NameCheckpoint) -> Answer:
        if not query.partition_id:
            raise DisProblem(BAD_REQUEST, "Request error. partition_id is needed")
        stream_id, part = self._find(call.project, query.stream_name, query.partition_id)
        app = await self._apps.find(call.project, query.app_name)
        checkpoint = app.checkpoints.get(stream_id, {}).get(part)
        # -1 stands for no checkpoint: the vendor's client then starts at its configured position.
        return 200, checkpoint or Checkpoint(sequence_number="-1")

    async def _forget(self, call: Call, query: NameCheckpoint) -> Answer:
        stream_id = self._streams.find(call.project, query.stream_name).stream_id
        part = self._find(call.project, query.stream_name, query.partition_id)[1] if query.partition_id else ""
        await self._apps.forget(call.project, query.app_name, stream_id, part)
        return 204, None

    # --- inside ---------------------------------------------------------------------------------------------

    def _find(self, project: str, stream_name: str, part: str) -> tuple[str, str]:
        stream = self._streams.find(project, stream_name)
        return stream.stream_id, stream.present(part).id

    async def _app(self, project: str, name: str) -> dict[str, Any]:
        app = await self._apps.find(project, name)
        return {
            "app_name": app.name,
            "app_id": app.app_id,
            "create_time": int(app.created_at * 1000),
            "commit_checkpoint_stream_names": [
                stream
                for stream in self._streams.names(project)
                if self._streams.find(project, stream).stream_id in app.checkpoints
            ],
        }

    def _partition(self, stream: Stream, partition: Partition) -> dict[str, Any]:
        first, next_ = self._streams.span(stream, partition)
        status = "ACTIVE" if partition.open else "EXPIRED" if self._streams.expired(stream, partition) else "DELETED"
        shown = {
            "status": status,
            "partition_id": partition.id,
            "hash_range": f"[{partition.low} : {partition.high}]",
            "sequence_number_range": f"[{first} : {next_}]",
        }
        parents = ",".join(stream.partitions[number].id for number in partition.parents)
        return {**shown, "parent_partitions": f"({parents})"} if parents else shown


def _info(stream: Stream) -> dict[str, Any]:
    return {
        "stream_name": stream.name,
        "create_time": int(stream.created_at * 1000),
        "retention_period": stream.retention,
        "status": "RUNNING",
        "stream_type": stream.stream_type,
        "data_type": stream.data_type,
        "partition_count": len(stream.open),
        "auto_scale_enabled": False,
        "tags": [],
        "sys_tags": [],
    }


def _record(record: Record) -> dict[str, Any]:
    shown = {
        "sequence_number": record.sequence_number,
        "data": record.data,
        "timestamp": record.timestamp,
        "timestamp_type": "CreateTime",
    }
    return shown if record.partition_key is None else {"partition_key": record.partition_key, **shown}


def _refuse(status: int, problem: str) -> DisProblem:
    return DisProblem("DIS.4116" if status == 403 else BAD_REQUEST, problem, status)
