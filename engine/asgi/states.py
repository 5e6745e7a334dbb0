"""States of an HTTP connection, and the changes between them.

A connection handles one request at a time. Bytes of later requests wait unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Use of the bytes that a client sends next."""

    HEAD = auto()  #: They are part of a head. The previous request is answered.
    BODY = auto()  #: They are part of the body of the request that the application handles.
    ANSWERING = auto()  #: They wait. The application has the whole request and has not answered it completely.
    DISCARDING = auto()  #: They are the rest of an answered request, and are dropped. The next request follows.
    LINGERING = auto()  #: They are dropped. The last response is written, and the client has to close the connection.
    CLOSED = auto()  #: They are dropped. The transport is closed, or closes once the last response is sent.


#: States that may follow each state.
NEXT: Mapping[State, frozenset[State]] = {
    State.HEAD: frozenset({State.BODY, State.ANSWERING, State.LINGERING, State.CLOSED}),
    State.BODY: frozenset({State.ANSWERING, State.DISCARDING, State.LINGERING, State.CLOSED}),
    State.ANSWERING: frozenset({State.HEAD, State.LINGERING, State.CLOSED}),
    State.DISCARDING: frozenset({State.HEAD, State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
