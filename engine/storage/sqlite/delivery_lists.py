"""SQL of lists and counts of deliveries. Each statement scans a range of ids, whose end ``SCANNED_UNTIL`` returns."""

from __future__ import annotations

from engine.model import DestinationSpec
from engine.protocols import DeliveryCount, DeliveryFilter

COLUMNS = "owed_id, key, function_id, condition, destination, param, due, tries, error, since"
#: Statement that returns the number of rows that one page scans, and the id of the last of these rows.
SCANNED_UNTIL = (
    "SELECT count(*), max(owed_id) FROM (SELECT owed_id FROM owed WHERE owed_id > ? ORDER BY owed_id LIMIT ?)"
)


def conditions(chosen: DeliveryFilter) -> tuple[str, tuple[object, ...]]:
    """Return the SQL conditions for the filter, and the values of their placeholders."""
    wanted = f" AND due IS {'' if chosen.given_up else 'NOT '}NULL AND function_id IN ({marks(len(chosen.functions))})"
    if chosen.destination is None:
        return wanted, (*chosen.functions,)
    values = (*chosen.functions, chosen.destination.destination, chosen.destination.param)
    return f"{wanted} AND destination = ? AND param = ?", values


def page(wanted: str) -> str:
    """Return the SQL for one page of the deliveries that meet the conditions ``wanted``, sorted by id."""
    return f"SELECT {COLUMNS} FROM owed NOT INDEXED WHERE owed_id > ? AND owed_id <= ?{wanted} ORDER BY owed_id LIMIT ?"


def given_up(functions: int) -> str:
    """Return the SQL of the source and the conditions of the given-up deliveries of ``functions`` functions."""
    return f"FROM owed INDEXED BY owed_given_up WHERE due IS NULL AND function_id IN ({marks(functions)})"


def given_up_count(functions: int) -> str:
    """Return the SQL for the number of given-up deliveries, which reads a limited number of them."""
    return f"SELECT count(*) FROM (SELECT 1 {given_up(functions)} LIMIT ?)"


def counts(functions: int) -> str:
    """Return the SQL for the numbers of deliveries of ``functions`` functions. ``to_count`` reads its rows."""
    return (
        "SELECT function_id, destination, param, due IS NULL, count(*) FROM owed NOT INDEXED"
        f" WHERE owed_id > ? AND owed_id <= ? AND function_id IN ({marks(functions)}) GROUP BY 1, 2, 3, 4"
    )


def to_count(function_id: int, destination: str, param: str, given_up: int, count: int) -> DeliveryCount:
    return DeliveryCount(
        function_id=function_id,
        destination=DestinationSpec(destination=destination, param=param),
        given_up=bool(given_up),
        count=count,
    )


def marks(count: int) -> str:
    return ",".join("?" * count)
