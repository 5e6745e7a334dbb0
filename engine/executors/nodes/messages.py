"""Control messages between the engine and an agent, and the order in which they follow each other.

    agent   Hello     ──▶ engine
            Welcome, or Refused and the end of the connection ◀──
            Joined, or Unfit and the end ──▶

            Ping ──▶ ◀── Pong, each fifth of the lease
            ◀── Prepare    ──▶ Prepared                    (an instance: its number is its channel)
                Fetch ──▶ ◀── Packages, in PACKAGE messages
            ◀── Start      ──▶ Gone, when nothing of it is left
            ◀── Kill                                       (also of an instance that was only prepared)
            ◀── Leave                                      (the agent exits)

A reply has the number of its request. The numbers of instances, of packages and of streams are their channels.
"""

from __future__ import annotations

import errno
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from engine.auth.agencies import Agency
from engine.errors import InvalidField
from engine.executors.nodes.connection import CONTROL, Connection, ProtocolError
from engine.model import Function

WIRE = 3  #: version of these messages


class Problem(Struct, frozen=True, kw_only=True):
    """InvalidField or OSError that kept an agent from preparing or starting an instance."""

    text: str
    field: str = ""  #: of an InvalidField
    value: str = ""
    number: int = 0  #: of an OSError
    file: str = ""

    @staticmethod
    def of(error: InvalidField | OSError) -> Problem:
        if isinstance(error, InvalidField):
            return Problem(text=error.allowed, field=error.field, value=str(error.value))
        text, file = error.strerror or str(error), str(error.filename or "")
        return Problem(text=text, number=error.errno or errno.EIO, file=file)

    def error(self) -> InvalidField | OSError:
        """Return the error again."""
        if self.field:
            return InvalidField(self.field, self.value, self.text)
        return OSError(self.number, self.text, self.file or None)


class _Message(Struct, frozen=True, tag=True):
    """Base of all messages. The name of the class is the tag."""


# --- from the agent -------------------------------------------------------------------------------------------


class Hello(_Message, frozen=True, kw_only=True):
    """First message: the agent shows its token, and says what its machine has."""

    version: str  #: of functiond
    wire: int  #: ``WIRE``
    token: str
    previous: str = ""  #: session of which the agent's supervisor knows that nothing runs any more
    at: float  #: seconds since the epoch, by the clock of the node
    cpus: float  #: processors for instances
    memory: int  #: MiB for instances


class Joined(_Message, frozen=True, kw_only=True):
    """The agent can start instances."""

    walls: dict[str, str]  #: see ``Launcher.walls``
    lacks: dict[str, str] = {}  #: families of runtimes that cannot run, with the reasons
    folders: tuple[str, ...] = ()  #: names of the folders of the host that functions have there
    kills: str = "pid namespace"  #: means by which the supervisor ends everything


class Unfit(_Message, frozen=True):
    """The node cannot do what ``Welcome`` asks for."""

    reason: str


class Ping(_Message, frozen=True):
    number: int


class Prepared(_Message, frozen=True):
    number: int
    problem: Problem | None = None
    command: str = ""  #: program of the worker


class Fetch(_Message, frozen=True):
    """Request for a package. The reply is sent in PACKAGE messages on the channel ``number``."""

    number: int
    sha256: str


class Gone(_Message, frozen=True, kw_only=True):
    """Nothing of an instance is left, or nothing was started."""

    number: int
    status: int | None = None  #: see ``engine.executors.process.Exit``
    out_of_memory: bool = False
    unread: bool = False
    received: int = 0  #: bytes of FRAMES that the agent has received for it
    problem: Problem | None = None  #: the process did not become an instance


# --- from the engine ------------------------------------------------------------------------------------------


class Welcome(_Message, frozen=True, kw_only=True):
    """The token is valid. The agent keeps the rules of the engine."""

    session: str  #: id of this connection
    name: str  #: of the node
    lease: float  #: seconds
    region: str
    processes: int  #: most processes of one instance
    term_grace: float
    sandbox: dict[str, Any]  #: fields of ``IsolationOptions``
    api_ports: tuple[int, ...] = ()  #: ports at which functions expect the API; empty: they have no access


class Refused(_Message, frozen=True):
    reason: str


class Pong(_Message, frozen=True):
    number: int
    seconds: float  #: from the ping, in which the node may run instances


class Prepare(_Message, frozen=True, kw_only=True):
    """Make ready what an instance needs: packages, interpreter, network of its project."""

    number: int
    function: Function
    memory: int  #: MiB
    gpus: tuple[str, ...] = ()  #: as in ``CUDA_VISIBLE_DEVICES``


class Start(_Message, frozen=True, kw_only=True):
    """Start an instance that was prepared, and send it SETUP. Its other frames come from the engine."""

    number: int
    instance: str  #: id of the instance
    token: str = ""  #: for the API of the engine
    agency: Agency | None = None


class Kill(_Message, frozen=True):
    number: int


class NoPackage(_Message, frozen=True):
    """Reply to ``Fetch`` in place of the package, or in the midst of it."""

    number: int
    reason: str


class StreamRead(_Message, frozen=True):
    """Acknowledgement, in both directions: the receiver has passed on so many bytes of a stream."""

    number: int
    size: int


class Leave(_Message, frozen=True):
    """The agent and its supervisor exit, and do not come back by themselves."""

    reason: str


FromAgent = Hello | Joined | Unfit | Ping | Prepared | Fetch | Gone | StreamRead
FromEngine = Welcome | Refused | Pong | Prepare | Start | Kill | NoPackage | StreamRead | Leave

_encode = msgspec.msgpack.Encoder().encode
_from_agent, _from_engine = msgspec.msgpack.Decoder(FromAgent), msgspec.msgpack.Decoder(FromEngine)
_Any = TypeVar("_Any")


def send(connection: Connection, message: FromAgent | FromEngine, channel: int = 0) -> None:
    """Send a message, after all that was sent on a channel."""
    connection.send(CONTROL, channel, _encode(message))


def from_agent(body: bytes) -> FromAgent:
    """Decode a message of an agent. Raises ProtocolError."""
    return _decode(_from_agent, body)


def from_engine(body: bytes) -> FromEngine:
    """Decode a message of the engine. Raises ProtocolError."""
    return _decode(_from_engine, body)


def _decode(decoder: msgspec.msgpack.Decoder[_Any], body: bytes) -> _Any:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"it sent a message that is not of this protocol: {error}") from None
