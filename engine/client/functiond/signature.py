"""Signature of a function of an app: check of arguments by their annotations, and the event of a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, get_type_hints

import msgspec

from functiond.codec import decode, encode
from functiond.errors import BadArgument

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """Parameters and result of ``call``. Annotations are read at the first use, when all names are defined."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self._name, self._call = name, call
        self._signature = inspect.signature(call)

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        try:
            return get_type_hints(self._call, include_extras=True)
        except (NameError, TypeError, SyntaxError) as error:
            raise BadArgument(f"{self._name}: its annotations cannot be read: {error}") from None

    @property
    def returns(self) -> Any:
        """Type of the result; Any if the function has no annotation for it."""
        return self._hints.get("return", Any)

    def event(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event of a call.

        Raises BadArgument if arguments are missing, unknown, or do not have the types of their annotations.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArgument(f"{self._name}: {error}") from None
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                checked: Any = {key: self._checked(key, name, one) for key, one in value.items()}
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                checked = tuple(self._checked(name, name, one) for one in value)
            else:
                checked = self._checked(name, name, value)
            bound.arguments[name] = checked
        return {"args": bound.args, "kwargs": bound.kwargs}

    def _checked(self, shown: str, parameter: str, value: object) -> msgspec.Raw:
        """Return an argument as JSON, after it has been read as a value of the annotation."""
        try:
            text = encode(value)
            decode(text, self._hints.get(parameter, Any))
        except (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError, RecursionError) as error:
            short = repr(value)
            short = short if len(short) <= 80 else f"{short[:77]}..."
            raise BadArgument(f"{self._name}: argument `{shown}` is {short}: {error}") from None
        return msgspec.Raw(text)

    @property
    def required(self) -> int:
        """Number of parameters without a default."""
        parameters = self._signature.parameters.values()
        return sum(one.default is one.empty and one.kind not in _VARIADIC for one in parameters)
