"""Errors of triggers. The base classes are in ``engine.errors.errors``.

A kind is the type of a trigger, such as TIMER.

FunctiondError
├── InvalidField
│   ├── UnknownTriggerType        a trigger to create has a kind that no plugin provides
│   └── InvalidTrigger
│       ├── StatusFixed           triggers of this kind cannot be disabled
│       └── InvocationModeFixed   triggers of this kind always invoke asynchronously
├── NotFound
│   ├── NoTriggerType             the URL path has a kind that no plugin provides
│   └── UnknownTrigger
├── Conflict
│   ├── CursorMoved               another source moved the cursors, or the trigger was changed
│   ├── SourceReplaced            what a source reads was deleted and made anew: the source starts again
│   ├── TriggerExists             the function version already has an equal trigger
│   └── TriggerClash              another trigger uses a resource, such as a path, that this one needs
└── Forbidden
    └── TooManyTriggers
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from engine.errors.errors import Conflict, Forbidden, InvalidField, NotFound


class UnknownTriggerType(InvalidField):
    def __init__(self, kind: str, registered: Sequence[str]) -> None:
        near = difflib.get_close_matches(kind.upper(), registered, n=1)
        hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(registered)}"
        super().__init__("trigger_type_code", kind, hint)


class InvalidTrigger(InvalidField):
    def __init__(self, kind: str, field: str, value: object, allowed: str) -> None:
        self.kind = kind
        super().__init__(field, value, f"{allowed} (trigger type {kind})")


class StatusFixed(InvalidTrigger):
    def __init__(self, kind: str, status: str) -> None:
        super().__init__(kind, "trigger_status", status, "a trigger of this kind cannot be disabled: delete it instead")


class InvocationModeFixed(InvalidTrigger):
    def __init__(self, kind: str, field: str, value: object, hint: str = "") -> None:
        allowed = f"this kind invokes its function asynchronously; the invocation mode cannot be changed{hint}"
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


class SourceReplaced(Conflict):
    def __init__(self, before: str, now: str) -> None:
        super().__init__(f"{before} was deleted and is {now or 'missing'} now: the source starts again")


class TriggerExists(Conflict):
    def __init__(self, kind: str, what: str, trigger_id: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"The {kind} trigger has existed: {trigger_id} has {what}")


class TriggerClash(Conflict):
    def __init__(self, kind: str, problem: str) -> None:
        self.kind = kind
        super().__init__(problem)


class TooManyTriggers(Forbidden):
    def __init__(self, kind: str, limit: int, scope: str) -> None:
        self.kind, self.limit = kind, limit
        super().__init__(f"{scope} may have at most {limit} triggers: delete one first (trigger type {kind})")
