"""Limits of the API's fields, read from their types, for the forms that fill these fields."""

from __future__ import annotations

from functools import cache
from typing import Any

from msgspec import Struct, inspect


class Limits(Struct, frozen=True, kw_only=True):
    """Values that a field accepts. None: no limit."""

    low: float | None = None
    high: float | None = None
    longest: int | None = None  #: characters
    whole: bool = True  #: numbers without a fraction only
    choices: tuple[Any, ...] = ()  #: the only accepted values; empty: any

    @property
    def text(self) -> str:
        """Range of the numbers as text, such as ``3 to 900``; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:,g} to {self.high:,.0f}"

    def accept(self, number: float) -> bool:
        return (self.low is None or self.low <= number) and (self.high is None or number <= self.high)


@cache
def limits_of(kind: type[Struct], name: str) -> Limits:
    """Return the limits of the field ``name`` of a struct. Raises KeyError if there is none such."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    fields = {field.name: field.type for field in shape.fields}
    return _limits(fields[name])


def _limits(kind: inspect.Type) -> Limits:
    if isinstance(kind, inspect.Metadata):
        return _limits(kind.type)
    if isinstance(kind, inspect.UnionType):
        found = (_limits(one) for one in kind.types)
        return next((one for one in found if one != Limits()), Limits())
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return Limits(low=kind.ge, high=kind.le, whole=isinstance(kind, inspect.IntType))
    if isinstance(kind, inspect.StrType):
        return Limits(longest=kind.max_length)
    return Limits(choices=tuple(kind.values)) if isinstance(kind, inspect.LiteralType) else Limits()
