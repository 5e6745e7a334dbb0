"""The port on which the servers of HTTP functions listen, where all instances share the host's network.

Then there is one such instance at a time: an idle one goes when another function, or another version, needs the port.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from engine.executors.process import Instance


class SharedPort:
    def __init__(self, is_idle: Callable[[Instance], bool]) -> None:
        self._is_idle = is_idle
        self._holder: Instance | None = None

    @property
    def is_free(self) -> bool:
        return self._holder is None or self._holder.gone.is_set()

    async def free(self) -> None:
        """Once this returns the port can be taken, by ``hold`` in the same step. Raises OSError if it is in use."""
        while (holder := self._holder) is not None and not holder.gone.is_set():
            if holder.end is None and not self._is_idle(holder):
                raise OSError(errno.EADDRINUSE, "the port of HTTP functions is in use, since there is one for all")
            holder.dismiss()
            await holder.gone.wait()

    def hold(self, instance: Instance) -> None:
        """It has the port until it is gone."""
        self._holder = instance
