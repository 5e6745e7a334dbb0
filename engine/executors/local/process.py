"""Process of an instance on this machine, with the limits that enclose it."""

from __future__ import annotations

from concurrent.futures import Future

from engine.executors.local.child import ChildProcess
from engine.executors.process import Exit
from engine.isolation.limits import Enclosure


class LocalProcess:
    """Child process and its enclosure (protocol ``InstanceProcess``).

    The enclosure is created in a thread while the process starts: ``enclosing`` is its future result.
    """

    def __init__(self, id: str, child: ChildProcess) -> None:
        self.id, self.child = id, child
        self.enclosing: Future[Enclosure | OSError] | None = None
        self.enclosure: Enclosure | None = None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    def kill(self) -> None:
        self.child.kill()
        if self.enclosure is not None:
            self.enclosure.kill()

    def reap(self) -> Exit:
        # Asked first: the process is a zombie and still holds its pid, so its group is certainly its own.
        out_of_memory = self.enclosure is not None and self.enclosure.out_of_memory()
        return Exit(self.child.reap(), out_of_memory)

    def remove_enclosure(self) -> None:
        """Remove the enclosure as soon as it exists. Blocks."""
        enclosing = self.enclosing
        enclosure = enclosing.result() if enclosing is not None and not enclosing.cancelled() else None
        if enclosure is not None and not isinstance(enclosure, OSError):
            enclosure.remove()
