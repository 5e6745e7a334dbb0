"""API of apps for the streams that the engine serves itself, at the vendor's paths: apps, checkpoints, and progress.

The progress of an app is the position of its checkpoint in each partition of a stream.
"""

from __future__ import annotations

from typing import Any

from plugins._shared.vendor_api import Answer, Call
from plugins.dis import bodies as b
from plugins.dis.apps import App, Apps, Checkpoint
from plugins.dis.problems import BAD_REQUEST, DisProblem
from plugins.dis.streams import Streams


class ConsumersApi:
    def __init__(self, apps: Apps, streams: Streams) -> None:
        self._apps, self._streams = apps, streams

    async def create(self, call: Call) -> Answer:
        await self._apps.create(call.project, b.decode_body(call, b.CreateApp).app_name)
        return 201, {}

    async def list(self, call: Call) -> Answer:
        query = b.decode_query(call.request, b.ListApps)
        names = await self._apps.names(call.project, query.start_app_name)
        apps = [await self._shown(call.project, name) for name in names]
        if query.stream_name:
            apps = [app for app in apps if query.stream_name in app["commit_checkpoint_stream_names"]]
        page = apps[: query.limit]
        return 200, {"has_more_app": len(page) < len(apps), "apps": page, "total_number": len(apps)}

    async def show(self, call: Call) -> Answer:
        return 200, await self._shown(call.project, call.names[0])

    async def delete(self, call: Call) -> Answer:
        await self._apps.delete(call.project, call.names[0])
        return 204, None

    async def progress(self, call: Call) -> Answer:
        name, stream_name = call.names
        query = b.decode_query(call.request, b.ShowConsumer)
        app, stream = await self._apps.find(call.project, name), self._streams.find(call.project, stream_name)
        following = [one for one in stream.partitions if one.id > query.start_partition_id]
        states = []
        for one in following[: query.limit]:
            first, next_ = self._streams.span(stream, one)
            checkpoint = app.checkpoints.get(stream.stream_id, {}).get(one.id)
            state = {
                "partition_id": one.id,
                "sequence_number": checkpoint.sequence_number if checkpoint else "-1",
                "latest_offset": next_,
                "earliest_offset": first,
                "checkpoint_type": query.checkpoint_type,
                "status": "ACTIVE" if one.open else "DELETED",
            }
            states.append(state)
        more = len(states) < len(following)
        body = {"stream_name": stream_name, "app_name": name, "has_more": more, "partition_consuming_states": states}
        return 200, body

    async def commit(self, call: Call) -> Answer:
        body = b.decode_body(call, b.CommitCheckpoint)
        stream_id, part = self._partition(call.project, body.stream_name, body.partition_id)
        checkpoint = Checkpoint(sequence_number=body.sequence_number, metadata=body.metadata or "")
        await self._apps.commit(call.project, body.app_name, stream_id, part, checkpoint)
        return 201, {}

    async def checkpoint(self, call: Call) -> Answer:
        query = b.decode_query(call.request, b.NameCheckpoint)
        if not query.partition_id:
            raise DisProblem(BAD_REQUEST, "Request error. partition_id is needed")
        stream_id, part = self._partition(call.project, query.stream_name, query.partition_id)
        app = await self._apps.find(call.project, query.app_name)
        found = app.checkpoints.get(stream_id, {}).get(part)
        # -1 stands for no checkpoint: the vendor's client then starts at its configured position.
        return 200, found or Checkpoint(sequence_number="-1")

    async def forget(self, call: Call) -> Answer:
        query = b.decode_query(call.request, b.NameCheckpoint)
        stream_id = self._streams.find(call.project, query.stream_name).stream_id
        part = self._partition(call.project, query.stream_name, query.partition_id)[1] if query.partition_id else ""
        await self._apps.forget(call.project, query.app_name, stream_id, part)
        return 204, None

    def _partition(self, project: str, stream_name: str, part: str) -> tuple[str, str]:
        stream = self._streams.find(project, stream_name)
        return stream.stream_id, stream.present(part).id

    async def _shown(self, project: str, name: str) -> dict[str, Any]:
        app: App = await self._apps.find(project, name)
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
