"""Interface of an instance to its process, which may run on this machine or on another."""

from __future__ import annotations

from typing import NamedTuple, Protocol

CLOSED = "its connection closed"  #: why a node was lost


class Exit(NamedTuple):
    """Exit of the process of an instance."""

    status: int | None  #: exit status, negated signal number, or None if unknown
    out_of_memory: bool = False  #: killed by the kernel because of its memory limit
    unread: bool = False  #: certainly left the last frame unread, as far as the process's host knows
    lost: str = ""  #: why its node was lost; empty: it was not


class InstanceProcess(Protocol):
    """Process of an instance, and the processes that it starts.

    When the process has exited, ``alive`` becomes False and ``Instance.exited`` is called once, from the event loop.
    """

    @property
    def id(self) -> str:
        """Id of the instance, as its function sees it."""
        ...

    @property
    def pid(self) -> int:
        """Process id as the engine sees it. 0 means that the process does not exist yet or is on another machine."""
        ...

    @property
    def alive(self) -> bool:
        """True until the exit of the process is announced."""
        ...

    def kill(self) -> None:
        """Kill the process and those that it started, at once or as soon as the process exists."""
        ...

    def reap(self) -> Exit:
        """Release the process. Call once, after its exit."""
        ...


class Channel(Protocol):
    """Connection to the process of an instance, which carries the frames of ``engine.runtimes.protocol``.

    Implemented by ``LocalChannel``. Passes received data, raw output and its own end to a ``ChannelOwner``. May be
    connected after the instance was created.
    """

    @property
    def connected(self) -> bool:
        """True from the connection to the process until the connection is lost."""
        ...

    @property
    def unsent(self) -> bool:
        """True if some written bytes have not left the engine."""
        ...

    def write(self, frame: bytes) -> bool:
        """Send a frame. Return False if the process certainly reads nothing of it."""
        ...

    def read_rest(self) -> bool:
        """Pass data to the owner that has arrived and that the event loop has not read yet.

        Return True if the process certainly left the last frame unread.
        """
        ...

    def read_output(self) -> None:
        """Pass raw output to the owner that was written up to now, including unfinished lines."""
        ...

    def abort(self) -> None:
        """End the connection without sending what is unsent. The owner's ``disconnected`` is called later."""
        ...

    def close(self) -> None:
        """Pass the rest of the raw output to the owner, and release everything.

        Call when the process has exited and the channel is not connected.
        """
        ...


class ChannelOwner(Protocol):
    """Receiver of the data of a channel. Implemented by ``Instance``."""

    def received(self, data: bytes) -> None:
        """Handle data that the process sent, in pieces of any size."""
        ...

    def record_output(self, stream: int, text: bytes) -> None:
        """Record raw output: whole lines written to stdout or stderr, past the worker."""
        ...

    def disconnected(self, *, unread: bool) -> None:
        """Handle the end of the connection. ``unread``: the process certainly left the last frame unread."""
        ...
