"""Port on which the servers of all HTTP functions listen if instances share the host's network.

Only one instance with this port runs at a time. An idle one is dismissed when another function or version needs the
port.
"""

from __future__ import annotations

import errno

from engine.executors.instance import Instance


class SharedPort:
    """Assignment of the port to one instance at a time."""

    def __init__(self) -> None:
        self._holder: Instance | None = None

    @property
    def is_free(self) -> bool:
        return self._holder is None or self._holder.closed.is_set()

    async def free(self) -> None:
        """Wait until no instance has the port. The caller must then call ``hold`` without awaiting in between.

        An idle instance that has the port is dismissed. Raises OSError if the instance is not idle.
        """
        while (holder := self._holder) is not None and not holder.closed.is_set():
            if holder.end is None and not holder.idle:
                raise OSError(errno.EADDRINUSE, "the port of HTTP functions is in use, since there is one for all")
            holder.dismiss()
            await holder.closed.wait()

    def hold(self, instance: Instance) -> None:
        """Assign the port to an instance, until the process of the instance has exited."""
        self._holder = instance
