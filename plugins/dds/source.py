"""Source of DDS and GAUSSMONGO: a collection's change stream, read from the trigger's cursor on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins.dds.options import DdsOptions, check_client

if TYPE_CHECKING:
    from plugins.dds.reader import Reader


class DdsTrigger:
    def __init__(self, options: DdsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        check_client()
        reader = await anyio.to_thread.run_sync(_load)
        await reader(self._options, context).run(task_status)


def _load() -> type[Reader]:
    from plugins.dds.reader import Reader  # imported late: the client takes half a second to import

    return Reader
