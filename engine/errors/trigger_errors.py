"""What can be wrong with a trigger: a branch of the tree in ``errors``, where each leaf knows the trigger's kind.

FunctiondError
├── InvalidField
│   ├── UnknownTriggerType        no plugin knows the kind that shall be created
│   └── InvalidTrigger
│       ├── StatusFixed           this kind cannot be disabled
│       └── InvocationModeFixed   this kind is invoked asynchronously, whatever is asked
├── NotFound
│   ├── NoTriggerType             no plugin knows the kind that a path names
│   └── UnknownTrigger
├── Conflict
│   ├── CursorMoved               a source is not the one that moves its trigger's cursors any more
│   ├── TriggerExists             the version has one like it
│   └── TriggerClash              another trigger has what it needs
└── Forbidden
    └── TooManyTriggers
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from engine.errors.errors import Conflict, Forbidden, InvalidField, NotFound


class UnknownTriggerType(InvalidField):
    def __init__(self, kind: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(kind.upper(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        super().__init__("trigger_type_code", kind, hint)


class InvalidTrigger(InvalidField):
    def __init__(self, kind: str, field: str, value: object, allowed: str) -> None:
        self.kind = kind
        super().__init__(field, value, f"{allowed} (trigger type {kind})")


class StatusFixed(InvalidTrigger):
    def __init__(self, kind: str, status: str) -> None:
        super().__init__(kind, "trigger_status", status, "it cannot be disabled: delete it instead")


class InvocationModeFixed(InvalidTrigger):
    def __init__(self, kind: str, field: str, value: object, hint: str = "") -> None:
        allowed = f"it invokes its function asynchronously, and the invocation mode cannot be changed{hint}"
        super().__init__(kind, field, value, allowed)


class NoTriggerType(NotFound):
    def __init__(self, kind: str) -> None:
        super().__init__(f"Not found the trigger type {kind}")


class UnknownTrigger(NotFound):
    def __init__(self, kind: str, trigger_id: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"Not found the {kind} trigger {trigger_id}")


class CursorMoved(Conflict):
    def __init__(self, trigger_id: str, problem: str) -> None:
        self.trigger_id = trigger_id
        super().__init__(f"trigger {trigger_id}: {problem}")


class TriggerExists(Conflict):
    def __init__(self, kind: str, what: str, trigger_id: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"The {kind} trigger has existed: {trigger_id} has {what}")


class TriggerClash(Conflict):
    def __init__(self, kind: str, trigger_id: str, function: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"the {kind} trigger {trigger_id} of {function} has what this one asks for")


class TooManyTriggers(Forbidden):
    def __init__(self, kind: str, limit: int, scope: str) -> None:
        self.kind, self.limit = kind, limit
        super().__init__(f"{scope} may have {limit} triggers, and has them: delete one first (trigger type {kind})")
