"""Errors of fields that a request has and its operation has not."""

from __future__ import annotations

from engine.errors.errors import InvalidField

_LONGEST = 80  #: characters of a name that the message shows


class UnknownField(InvalidField):
    """Field that the body of one of functiond's own operations has not. ``hint`` names known fields."""

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(field, value, hint)
        shown = field if len(field) <= _LONGEST else field[: _LONGEST - 3] + "..."
        self.args = (f"unknown field `{shown}`; {hint}",)
