"""Options of a CTS trigger: name, and the operations that call the function."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField
from plugins._shared.fields import Name

SERVICES = 10
OPERATIONS = 10  #: operations of one service
ALL_OPERATIONS = 100
_PART = r"[\w.*-]+(?:;[\w.*-]+)*"
_OPERATION = re.compile(rf"([\w.-]+):{_PART}:({_PART})", re.ASCII)


class CtsOptions(Struct, frozen=True, kw_only=True):
    name: Annotated[Name, Meta(examples=["changes"])]
    operations: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            examples=["FunctionGraph:function:createFunction;deleteFunction"],
            extra={"help": "Service:resource[;resource]:action[;action], with * for all."},
        ),
    ]

    def __post_init__(self) -> None:
        actions: dict[str, int] = {}
        for operation in self.operations:
            match = _OPERATION.fullmatch(operation)
            if match is None:
                raise InvalidField("operations", operation, "needs Service:resource[;resource]:action[;action]")
            actions[match[1]] = actions.get(match[1], 0) + match[2].count(";") + 1
        if len(set(self.operations)) < len(self.operations):
            raise InvalidField("operations", list(self.operations), "must not repeat an operation")
        if len(actions) > SERVICES:
            raise InvalidField("operations", f"of {len(actions)} services", f"at most {SERVICES} are allowed")
        most = max(actions.values())
        if most > OPERATIONS or sum(actions.values()) > ALL_OPERATIONS:
            allowed = f"at most {OPERATIONS} actions a service and {ALL_OPERATIONS} in all are allowed"
            raise InvalidField("operations", f"{sum(actions.values())} actions", allowed)
