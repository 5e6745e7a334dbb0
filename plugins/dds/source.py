"""Source of DDS and GAUSSMONGO: a collection's change stream, read from the trigger's cursor on."""

from __future__ import annotations

from importlib import import_module

import anyio.to_thread
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins.dds.options import DdsOptions, check_client


class DdsTrigger:
    def __init__(self, options: DdsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        check_client()
        # Imported late, in a thread: the client takes half a second to import.
        module = await anyio.to_thread.run_sync(import_module, "plugins.dds.reader")
        await module.Reader(self._options, context).run(task_status)
