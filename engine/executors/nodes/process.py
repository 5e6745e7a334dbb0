"""Process of an instance on a node, and its channel on the connection of the node."""

from __future__ import annotations

from collections.abc import Callable

from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.executors.nodes.connection import FRAMES, Connection
from engine.executors.process import Exit


class NodeProcess:
    """Process on a node (protocol ``InstanceProcess``). ``end`` announces its exit."""

    pid = 0

    instance: Instance  #: set when it exists

    def __init__(self, plan: LaunchPlan, owner: InstanceOwner, channel: NodeChannel, kill: Callable[[], None]) -> None:
        self.id, self.function = plan.instance, plan.function
        self.owner, self.channel, self._kill = owner, channel, kill
        self.alive, self._exit = True, Exit(None)
        self.failure: Exception | None = None  #: kept the process from becoming an instance

    def kill(self) -> None:
        if self.alive:
            self._kill()

    def reap(self) -> Exit:
        return self._exit

    def end(self, exited: Exit, failure: Exception | None = None) -> None:
        """Announce that nothing of the process is left."""
        self.alive, self._exit, self.failure = False, exited, failure
        self.instance.exited()


class NodeChannel:
    """Channel to a process on a node (protocol ``Channel``).

    Raw output and frames arrive in the order in which the process wrote them.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self.number, self.connected = connection, number, True
        self.sent = 0  #: bytes

    @property
    def unsent(self) -> bool:
        return self._connection.unsent(self.number) > 0

    def write(self, frame: bytes) -> bool:
        if not self.connected or not self._connection.open:
            return False
        if frame:
            self.sent += len(frame)
            self._connection.send(FRAMES, self.number, frame)
        return True

    def read_rest(self) -> bool:
        """Do nothing: the agent has sent the rest before it announces the exit."""
        return False

    def read_output(self) -> None:
        """Do nothing: the agent sends raw output before the frames that follow it."""

    def abort(self) -> None:
        self.connected = False
        self._connection.discard(self.number)

    def close(self) -> None:
        """Do nothing: the agent has closed everything."""
