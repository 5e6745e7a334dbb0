"""Identity of what a trigger's source reads, to which the source's cursors belong.

Streams, queues, folders and the like can be deleted and made again under the same name. A cursor of the earlier one
must not be used for the later one, whose events would be skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.errors import SourceReplaced

_MARK = b"of "


class SourceIdentity:
    """Identity that one run of a source has found, such as the id of a stream or the device and inode of a folder.

    Call ``check`` after each wait, and pass it to ``TriggerContext.accept_batch``. The engine runs a source anew, at
    once and without a failure, when it raises SourceReplaced; the new run finds no position for the new identity.
    """

    def __init__(self, text: str, look: Callable[[], Awaitable[str]]) -> None:
        """``look`` returns the present identity, in one line."""
        self.text, self._look = text, look

    async def check(self) -> None:
        """Raise SourceReplaced if the identity is another now. Errors of ``look`` pass."""
        if (now := await self._look()) != self.text:
            raise SourceReplaced(self.text, now)

    def cursor(self, position: bytes) -> bytes:
        """Return a cursor that consists of this identity and a position."""
        return _MARK + self.text.encode() + b"\n" + position

    def position(self, cursor: bytes | None) -> bytes | None:
        """Return the position in a cursor, or None if the cursor belongs to another identity.

        A cursor without identity, as earlier versions stored it, is a position.
        """
        if cursor is None or not cursor.startswith(_MARK):
            return cursor
        identity, _, position = cursor.removeprefix(_MARK).partition(b"\n")
        return position if identity == self.text.encode() else None
