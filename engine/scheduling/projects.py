"""Projects that share the engine: of each function, and whether there are several."""

from __future__ import annotations

from collections import Counter

from engine.model import Function


class Projects:
    """Projects of functions. ``several`` tells whether functions of several exist, or credentials name several.

    Limits of one project hold only while there are several, so that one alone may use everything. ``other_slots`` is
    the number of the last free slots that are for projects that run nothing, one for each.
    """

    def __init__(self, *, named: bool = False, other_slots: int = 0) -> None:
        self.other_slots = other_slots
        self._of: dict[int, str] = {}
        self._functions = Counter[str]()
        self.note_credentials(named=named)

    def note_credentials(self, *, named: bool) -> None:
        """Note whether credentials name several projects."""
        self._named, self.count = named, max(len(self._functions), 2 if named else 0)
        self.several = self.count > 1

    def follow(self, function_id: int, latest: Function | None) -> None:
        """Note the project of a function; None: the function was deleted."""
        if (before := self._of.pop(function_id, "")) and latest is None:
            self._functions -= Counter((before,))
        elif latest is not None:
            self._of[function_id] = latest.project
            self._functions[latest.project] += not before
        self.note_credentials(named=self._named)

    def of(self, function_id: int) -> str:
        """Return the project of a function; empty if the function was deleted."""
        return self._of.get(function_id, "")
