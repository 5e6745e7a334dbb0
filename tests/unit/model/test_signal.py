"""Signals between components."""

from __future__ import annotations

import pytest

from engine.model.signal import Signal


def test_an_event_reaches_all_connected_functions_in_order() -> None:
    seen: list[tuple[str, int]] = []
    changed: Signal[[int]] = Signal()
    changed.connect(lambda number: seen.append(("first", number)))
    changed.connect(lambda number: seen.append(("second", number)))

    changed(7)

    assert seen == [("first", 7), ("second", 7)]


def test_an_error_of_a_connected_function_reaches_the_owner() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    stopped: Signal[[]] = Signal()
    stopped.connect(fail)

    with pytest.raises(LookupError):
        stopped()


def test_a_connection_can_end() -> None:
    seen: list[int] = []
    changed: Signal[[int]] = Signal()

    with changed.connected(seen.append), changed.connected(seen.append):
        changed(1)
    changed(2)

    assert seen == [1, 1]
