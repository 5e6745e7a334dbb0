"""SQL conditions for the records that a selection describes."""

from __future__ import annotations

import re
from typing import Any

from engine.model import State
from engine.model.identity import key_at
from engine.protocols import Selection
from engine.storage.sqlite.rows import SHOWN

_NUMBERS = {state: [number for number, shown in SHOWN.items() if shown is state] for state in State}


def span(selection: Selection) -> tuple[str, list[Any]]:
    """Return the SQL conditions on the key that the times of a selection make, and their values."""
    text, values = "", list[Any]()
    if selection.begin > 0:
        text += " AND key >= ?"
        values.append(key_at(selection.begin))
    if selection.end != float("inf"):
        text += " AND key < ?"
        values.append(key_at(selection.end))
    if selection.below is not None:
        text += " AND key < ?"
        values.append(selection.below)
    if selection.since:
        text += " AND key >= ?"
        values.append(selection.since)
    return text, values


def filters(selection: Selection, states: frozenset[State]) -> tuple[str, list[Any]]:
    text, values = "", list[Any]()
    if states:
        text += f" AND state IN ({','.join(str(number) for s in sorted(states) for number in _NUMBERS[s])})"
    for column, value in (
        ("version", selection.version),
        ("alias", selection.alias),
        ("source", selection.source),
        ("trigger_id", selection.trigger_id),
    ):
        if value:
            text += f" AND {column} = ?"
            values.append(value)
    for column, those in (
        ("key", selection.keys),
        ("function_id", selection.functions or None),
        ("code", selection.codes or None),
    ):
        if those is not None:
            text += f" AND {column} IN ({','.join('?' * len(those))})"
            values += sorted(those)
    if selection.without:
        text += f" AND code NOT IN ({','.join('?' * len(selection.without))})"
        values += sorted(selection.without)
    if selection.text:
        text += r" AND message LIKE ? ESCAPE '\'"
        escaped = re.sub(r"([%_\\])", r"\\\1", selection.text)
        values.append(f"%{escaped}%")
    return text, values
