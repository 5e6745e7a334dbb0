"""SQL for lists of records: the parts of a list, each with its index and order, and their filters."""

from __future__ import annotations

import re
from typing import Any

from engine.model import State
from engine.model.identity import key_at
from engine.protocols import Selection
from engine.storage.sqlite.rows import LISTED, SHOWN

Part = tuple[frozenset[State], str, str]  #: states, FROM clause, ORDER BY clause

#: Parts of a function's list: running, ready, delayed, held, ended. Each part is sorted by its index.
_PARTS: tuple[Part, ...] = (
    (frozenset({State.RUNNING}), "INDEXED BY running WHERE state = 2 AND function_id = ?", "key"),
    (frozenset({State.WAIT}), "INDEXED BY ready WHERE state = 0 AND function_id = ?", "rank, key"),
    (frozenset({State.WAIT}), "INDEXED BY delayed WHERE state = 1 AND function_id = ?", "due"),
    (frozenset({State.WAIT}), "INDEXED BY held WHERE state = -1 AND function_id = ?", "key"),
    (
        frozenset({State.SUCCESS, State.FAIL, State.DISCARD}),
        "INDEXED BY finished WHERE state >= 3 AND function_id = ?",
        "key DESC",
    ),
)
#: List of several functions. No index has the rows of several functions in the order of acceptance, so the table is
#: scanned.
_SCAN: Part = (frozenset(State), "NOT INDEXED WHERE key > 0", "key DESC")
#: Running rows of several functions. Running rows are few but may be the oldest, so a scan of the table would be long.
_RUNNING: Part = (frozenset({State.RUNNING}), "INDEXED BY running WHERE state = 2", "key DESC")

_NUMBERS = {state: [number for number, shown in SHOWN.items() if shown is state] for state in State}


def parts(selection: Selection) -> tuple[Part, ...]:
    if not selection.functions:
        return _PARTS
    return (_RUNNING if selection.states == _RUNNING[0] else _SCAN,)


def source(selection: Selection, part: str, order: str, states: frozenset[State]) -> tuple[str, list[Any]]:
    """Return an SQL FROM clause and its values, for the rows in ``states`` that match the selection.

    ``part`` is the SQL that selects the index and these states, and ``order`` their sort order. If ``selection.within``
    is set, only the first ``within`` rows in this order are searched.
    """
    keys, values = span(selection)
    if not selection.functions:
        values.insert(0, selection.function_id)
    conditions, more = filters(selection, states)
    values += more
    if not selection.within:
        return f"invocation {part}{keys}{conditions}", values
    first = f"SELECT rank, {LISTED} FROM invocation {part}{keys} ORDER BY {order} LIMIT {selection.within:d}"
    return f"({first}) WHERE true{conditions}", values


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
