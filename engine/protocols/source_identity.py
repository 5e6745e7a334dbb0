"""Identity of what a trigger's source reads, to which the source's cursors belong.

Streams, queues, folders and the like can be deleted and made again under the same name. A cursor of the earlier one
must not be used for the later one, whose events would be skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.errors import SourceReplaced


class SourceIdentity:
    """Identity that one run of a source has found, such as the id of a stream or the device and inode of a folder.

    Store ``text`` with the cursors, or as their name, and use only cursors that have it. Call ``check`` after each
    wait, and pass it to ``TriggerContext.accept_batch``. If it raises SourceReplaced, the engine runs the source anew,
    at once and without a failure.
    """

    def __init__(self, text: str, look: Callable[[], Awaitable[str]]) -> None:
        """``look`` returns the present identity."""
        self.text, self._look = text, look

    async def check(self) -> None:
        """Raise SourceReplaced if the identity is another now. Errors of ``look`` pass."""
        if (now := await self._look()) != self.text:
            raise SourceReplaced(self.text, now)
