"""The package ``functiond`` in instances, where ``functiond deploy`` packs this file as ``functiond.py``.

The functions of an app can be defined and called here, and nothing else: the client is not there, and any other name
of the package is a class whose use raises an error. Standard library only, Python 3.9 syntax.
"""

import base64
import dataclasses
import enum
import inspect
import json
import math
import re
import sys
import typing
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import PurePath
from uuid import UUID

_NO_CLIENT = "the client of functiond is not in instances: leave {} to programs, or chain functions by on_success"
_DURATION = re.compile(r"([+-]?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_context: "ContextVar[typing.Any]" = ContextVar("functiond.context", default=None)


def get_context() -> typing.Any:
    """Return the context object of the running invocation, which the platform documents."""
    return _context.get()


class App:
    def __init__(self, client: object = None) -> None:
        self.functions: dict[str, Function] = {}

    def function(self, **options: object) -> "typing.Callable[[typing.Any], Function]":
        def add(call: typing.Any) -> Function:
            return self.functions.setdefault(call.__name__, Function(call))

        return add


class Function:
    def __init__(self, call: typing.Any) -> None:
        self.__wrapped__ = call
        self.__name__, self.__doc__, self.name = call.__name__, call.__doc__, call.__name__

    def __call__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        return self.__wrapped__(*args, **kwargs)

    def __getattr__(self, name: str) -> typing.Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise RuntimeError(_NO_CLIENT.format(f"{self.name}.{name}"))


class _Absent(Exception):
    """Class of the client, which can be named, subscripted and constructed, and has no methods."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __class_getitem__(cls, item: object) -> type:
        return cls

    def __getattr__(self, name: str) -> typing.Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise RuntimeError(_NO_CLIENT.format(f"{type(self).__name__}.{name}"))


def __getattr__(name: str) -> type:
    if name.startswith("_"):
        raise AttributeError(name)
    absent = type(name, (_Absent,), {})
    globals()[name] = absent
    return absent


def handler_of(target: str, name: str) -> "typing.Callable[[typing.Any, typing.Any], typing.Any]":
    """Return the handler that runs the function ``name`` of the app ``target``, such as ``tasks:app``."""
    module, _, app = target.partition(":")
    functions: dict[str, Function] = getattr(import_module(module), app).functions
    if name not in functions:
        raise AttributeError(name)
    call = functions[name].__wrapped__

    def handle(event: object, context: object) -> object:
        args, kwargs = arguments(call, event)
        _context.set(context)
        return call(*args, **kwargs)

    if inspect.iscoroutinefunction(call):

        async def handle_async(event: object, context: object) -> str:
            return result_text(await typing.cast("typing.Awaitable[object]", handle(event, context)))

        return handle_async
    return lambda event, context: result_text(handle(event, context))


def arguments(call: typing.Any, event: typing.Any) -> "tuple[tuple[typing.Any, ...], dict[str, typing.Any]]":
    """Return the arguments of a function for an event: those of a call, or the event itself, as triggers send it.

    A function whose parameters all have defaults gets no event of a trigger.
    """
    signature = inspect.signature(call)
    if not (isinstance(event, dict) and event.keys() == {"args", "kwargs"}):
        needed = [one for one in signature.parameters.values() if one.default is one.empty]
        return ((event,) if needed else ()), {}
    bound = signature.bind(*event["args"], **event["kwargs"])
    hints = typing.get_type_hints(call)
    for name, value in bound.arguments.items():
        kind, hint = signature.parameters[name].kind, hints.get(name, typing.Any)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(convert(one, hint) for one in value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[name] = {key: convert(one, hint) for key, one in value.items()}
        else:
            bound.arguments[name] = convert(value, hint)
    return bound.args, bound.kwargs


def result_text(value: object) -> str:
    """Return a result as JSON text, which programs read by the return annotation."""
    return json.dumps(plain(value), ensure_ascii=False)


def plain(value: typing.Any) -> typing.Any:
    """Return a value as objects of JSON, in the form in which msgspec writes them."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(plain(key)): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime, date, time)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():.6f}S".replace("PT-", "-PT")
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if hasattr(value, "__struct_fields__"):
        return sys.modules["msgspec"].to_builtins(value, enc_hook=plain)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return plain(vars(value)) if hasattr(value, "__dict__") else value


def convert(value: typing.Any, hint: typing.Any) -> typing.Any:
    """Return a value of JSON as an object of the type ``hint``, whose checks have passed at the caller."""
    origin = typing.get_origin(hint)
    if hint in (typing.Any, object, None) or value is None:
        return value
    if hasattr(origin or hint, "__struct_fields__"):
        return sys.modules["msgspec"].convert(value, hint, dec_hook=lambda kind, one: convert(one, kind))
    if dataclasses.is_dataclass(origin):  # the types of its parameters do not matter
        return convert(value, origin)
    if origin is not None:
        return _convert_generic(value, origin, typing.get_args(hint))
    if hasattr(hint, "__supertype__"):
        return convert(value, hint.__supertype__)
    if hasattr(hint, "model_validate"):
        return hint.model_validate(value)
    if not isinstance(hint, type):
        return value
    return _convert_class(value, hint)


def _convert_class(value: typing.Any, kind: typing.Any) -> typing.Any:
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__total__"):
        hints = typing.get_type_hints(kind)
        computed = {one.name for one in getattr(kind, "__dataclass_fields__", {}).values() if not one.init}
        taken = hints.keys() - computed
        return kind(**{name: convert(one, hints[name]) for name, one in value.items() if name in taken})
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        return kind(*(convert(one, hints.get(name, typing.Any)) for name, one in zip(kind._fields, value)))
    if issubclass(kind, enum.Enum):
        return kind(value)
    if issubclass(kind, (datetime, time)):
        return kind.fromisoformat(value.replace("Z", "+00:00"))
    if issubclass(kind, date):
        return kind.fromisoformat(value)
    if issubclass(kind, timedelta):
        return _duration(value)
    if issubclass(kind, (bytes, bytearray)):
        return kind(base64.b64decode(value))
    if isinstance(value, kind):
        return value
    if not isinstance(value, next(form for bases, form in _FORMS if issubclass(kind, bases))):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return kind(value)


#: Types of JSON from which objects of classes are made. Of others, a union has another type.
_FORMS: "tuple[tuple[typing.Any, typing.Any], ...]" = (
    ((str, bool, dict, list), ()),
    ((int, float), (int, float)),
    ((tuple, set, frozenset), list),
    (object, object),
)


def _convert_generic(value: typing.Any, origin: typing.Any, args: "tuple[typing.Any, ...]") -> typing.Any:
    if origin in _UNIONS:
        return _convert_union(value, args)
    if origin is typing.Literal:
        return value
    if not isinstance(origin, type):  # Annotated and others that name a type first
        return convert(value, args[0])
    if not args:  # typing.List without the type of its items
        return convert(value, origin)
    if issubclass(origin, dict) or (isinstance(value, dict) and len(args) == 2):
        key, one = args
        return {_convert_key(name, key): convert(item, one) for name, item in value.items()}
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    if issubclass(origin, tuple) and Ellipsis not in args:
        return tuple(convert(one, kind) for one, kind in zip(value, args))
    found = [convert(one, args[0]) for one in value]
    return origin(found) if origin in (set, frozenset, tuple) else found


#: Unions are of two kinds since Python 3.10.
_UNIONS = (typing.Union, *((type(int | str),) if sys.version_info >= (3, 10) else ()))


def _convert_union(value: typing.Any, kinds: "tuple[typing.Any, ...]") -> typing.Any:
    """Return a value as the first type of a union that fits: one of the same class before all others."""
    rest = [kind for kind in kinds if kind is not type(None)]
    if type(value) in rest:
        return value
    for kind in rest:
        try:
            return convert(value, kind)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            continue
    return value


def _convert_key(name: str, kind: typing.Any) -> typing.Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(one for one in kind if str(plain(one)) == name)
    return int(name) if kind is int else float(name) if kind is float else convert(name, kind)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration")
    days, hours, minutes = (int(part or 0) for part in found.groups()[1:4])
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=float(found[5] or 0))
    return -length if found[1] == "-" else length
