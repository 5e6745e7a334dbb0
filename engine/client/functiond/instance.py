"""The package ``functiond`` in instances, where ``functiond deploy`` packs this file as ``functiond.py``.

The functions of an app can be defined and called here. Calls are queued by the worker (``functiond_client``), which has
``Client``, ``group`` and others, too. Any other name of the package is a class whose use raises an error. Standard
library only, Python 3.9 syntax.
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
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial, partialmethod
from importlib import import_module
from pathlib import PurePath
from urllib.parse import parse_qs, quote
from uuid import UUID

try:
    # At once, because threads that start from now on belong to their requests.
    _worker: typing.Any = import_module("functiond_client")
except ImportError:  # not in an instance
    _worker = None
_GROUP: typing.Any = getattr(_worker, "Group", ())  # older engines have none

_NO_CLIENT = "not in instances: leave {} to programs; functions can be queued here, chained by then, and grouped"
_DURATION = re.compile(r"([+-]?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_REQUEST = {"httpMethod", "pathParameters", "isBase64Encoded"}  #: members of a gateway's event
_Text: typing.Any = type("_Text", (str,), {})  #: of a path, query or form; becomes what its annotation says
_FLAGS = {"1": True, "on": True, "0": False, "off": False, "": None}  #: of queries and forms
_CALL = '{"args":'  #: beginning of the additional information of a timer that queues a call
_Hook = typing.Callable[..., typing.Any]
_Arguments = tuple[tuple[typing.Any, ...], dict[str, typing.Any]]
_context: "ContextVar[typing.Any]" = ContextVar("functiond.context", default=None)


def get_context() -> typing.Any:
    """Return the context object of the running invocation, which the platform documents."""
    return _context.get()


class App:
    def __init__(self, client: object = None, *, name: object = None) -> None:
        self.functions: dict[str, Function] = {}
        self._hooks: list[tuple[str, _Hook]] = []

    def _add(self, kind: str, hook: "_Hook") -> "_Hook":
        self._hooks.append((kind, hook))
        return hook

    before, after, startup = partialmethod(_add, "before"), partialmethod(_add, "after"), partialmethod(_add, "startup")

    def schedule(self, name: str, *, event: typing.Any = None, **times: typing.Any) -> None:
        """Create or change a timer; delete it without an event. Needs the role admin (``executor.function_role``)."""
        call = {} if event is None else event._content()
        set_timer(partial(_worker.exchange, get_context()), self.functions, name, call, **times)

    def unschedule(self, name: str) -> None:
        self.schedule(name)

    def function(self, **options: object) -> "typing.Callable[[typing.Any], Function]":
        def add(call: typing.Any) -> Function:
            return self.functions.setdefault(call.__name__, Function(call, options.get("name", call.__name__)))

        return add

    def http(self, path: str, **options: object) -> "_Hook":
        def add(call: typing.Any) -> Function:
            function: Function = call if isinstance(call, Function) else self.function()(call)
            function.has_paths = True
            return function

        return add


class Function:
    def __init__(self, call: typing.Any, name: object) -> None:
        self.__wrapped__ = call
        self.__name__, self.__doc__, self.name = call.__name__, call.__doc__, name
        self.has_paths = False

    def __call__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        return self.__wrapped__(*args, **kwargs)

    def __getattr__(self, name: str) -> typing.Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if not hasattr(_worker, "Function"):
            raise RuntimeError(f"{self.name}.{name} needs an instance of an engine that is no older than this app")
        return getattr(_worker.Function(self), name)

    def returned(self, value: object) -> object:
        """Return a value of JSON that a call has returned, as an object of the type of the return annotation."""
        return convert(value, typing.get_type_hints(self.__wrapped__).get("return", typing.Any))

    def mode_of(self, event: typing.Any) -> str:
        """Return the mode of a request of a gateway, sync or async; empty: the event itself is to be an argument."""
        if not isinstance(event, dict) or not event.keys() >= _REQUEST:
            return ""
        if not self.has_paths:  # published by others, perhaps as a handler of events
            with suppress(TypeError):
                if arguments(self.__wrapped__, event) != ((), {}):
                    return ""
        return str((event.get("headers") or {}).get("x-cff-invoke-type", "sync"))

    def event_of(self, args: "tuple[object, ...]", kwargs: "dict[str, object]", after: bool = False) -> object:
        """Return the event of a call; ``after``: another argument will precede. Raises BadArgument."""
        event, call = {"args": plain(args), "kwargs": plain(kwargs)}, self.__wrapped__
        try:
            if after:
                inspect.signature(call).bind(None, *args, **kwargs)
            else:
                arguments(call, event)
            json.dumps(event, default=_refuse)
        except TypeError as error:
            raise BadArgument(f"{self.name}{inspect.signature(call)} got {event!r:.200}: {error}") from None
        return event


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
    if name in getattr(_worker, "__all__", ()):
        return typing.cast(type, getattr(_worker, name))
    absent = type(name, (_Absent,), {})
    globals()[name] = absent
    return absent


def handler_of(target: str, name: str) -> "typing.Callable[[typing.Any, typing.Any], typing.Any]":
    """Return the handler that runs the function ``name`` of the app ``target``, such as ``tasks:app``."""
    app = _app(target)
    if name not in app.functions:
        raise AttributeError(name)
    function, call = app.functions[name], app.functions[name].__wrapped__
    is_async = inspect.iscoroutinefunction(call)

    async def run(event: object) -> str:
        mode = function.mode_of(event)
        try:
            args, kwargs = arguments(call, requested(event) if mode else event)
        except TypeError as error:
            if mode == "sync":
                return reply_text({"error_code": "BadArgument", "error_msg": str(error)}, 400)
            hint = 'send an object of arguments by name, or {"args": [...], "kwargs": {...}}'
            raise BadArgument(f"{name}{inspect.signature(call)} got {event!r:.200}: {error}; {hint}") from None
        result = call(*args, **kwargs)
        return (reply_text if mode == "sync" else result_text)(await result if is_async else result)

    async def handle_async(event: object, context: typing.Any) -> str:
        _context.set(context)
        return await _within(app._hooks, context, lambda: run(event), is_async)

    def handle(event: object, context: typing.Any) -> object:
        try:
            return handle_async(event, context).send(None)  # which awaits nothing, and needs no event loop
        except StopIteration as end:
            return end.value
        except RuntimeError as error:
            if isinstance(cause := error.__cause__, StopIteration) and str(error) == "coroutine raised StopIteration":
                raise cause from None
            raise

    return handle_async if is_async else handle


def startup_of(target: str) -> "typing.Callable[[typing.Any], None]":
    """Return the initializer that calls the startup hooks of an app."""

    def start(context: object) -> None:
        _context.set(context)
        for kind, hook in _app(target)._hooks:
            if kind == "startup":
                _worker.INSTANCE.call(hook)

    return start


def _app(target: str) -> App:
    module, _, name = target.partition(":")
    return typing.cast(App, getattr(import_module(module), name))


async def _within(hooks: "list[tuple[str, _Hook]]", context: typing.Any, run: "_Hook", is_async: bool) -> str:
    """Return what ``run`` returns, between hooks. One after the handler is called if those before it in the list were.

    Async hooks of plain functions run on the event loop of the instance, while the handler's thread waits.
    """

    async def call(hook: "_Hook", *args: object) -> None:
        value = hook(*args)
        if hasattr(type(value), "__await__"):
            await value if is_async else _worker.INSTANCE.call.wait(value)

    for place, (kind, hook) in enumerate(hooks):
        if kind == "before":
            await call(hook, context)
        elif kind == "after":
            try:
                text = await _within(hooks[place + 1 :], context, run, is_async)
            except BaseException as error:
                try:
                    await call(hook, context, error)
                except BaseException:
                    context.getLogger().exception("%s failed, after an error", getattr(hook, "__name__", hook))
                raise
            await call(hook, context, None)
            return text
    return typing.cast(str, await run())


def set_timer(
    send: "_Hook", functions: typing.Any, name: str, call: typing.Any, crontab: str = "", zone: str = ""
) -> None:
    """Create or change the timer ``name``, which queues a call of one of the functions. Delete it if ``call`` is empty.

    ``send(method, path, content)`` returns the content of a reply. Timers of the other functions are deleted last, so
    that a refused change leaves the timer. Raises TypeError if the call has options, or is of another function.
    """
    function, data = call.get("function", ""), dict[str, str]()
    others = {one.name for one in functions.values()} - {function}
    if name == "from-code":
        raise TypeError("the name from-code is that of timers of @app.function(schedule=…): use another")
    if call:
        if call.keys() != {"function", "event"} or len(others) == len(functions):
            raise TypeError(f"the timer {name} takes a result of event(...) without options and then, of the same app")
        fields = crontab.split()
        if len(fields) == 5:  # the API has the second before them, and no 7 for Sunday
            weekdays = re.sub(r"\b([0-6])-7/([1-9]\d*)\b", _through_sunday, fields[4])
            weekdays = re.sub(r"(?<![\d/])7\b", "0", re.sub(r"\b([0-6])-7\b", r"\1-6,0", weekdays))
            fields = ["0", *fields[:4], weekdays]
        schedule = " ".join([f"CRON_TZ={zone}", *fields] if zone else fields)
        data = {"name": name, "schedule_type": "Cron", "schedule": schedule}
        data["user_event"] = json.dumps(call["event"], ensure_ascii=False, separators=(",", ":"))
    for each in [*filter(None, [function]), *sorted(others)]:
        path = f"triggers/{quote(each, ':!')}"
        try:
            triggers = send("GET", path)
        except Exception as error:
            if each == function or getattr(error, "status", 0) != 404:
                raise
            continue  # not deployed
        timers = [one for one in triggers if one["trigger_type_code"] == "TIMER" and one["event_data"]["name"] == name]
        if each == function and not timers:
            send("POST", path, {"trigger_type_code": "TIMER", "event_data": data})
        for timer in timers:
            own = f"{path}/TIMER/{timer['trigger_id']}"
            if each != function:
                send("DELETE", own)
            elif {**timer["event_data"], **data} != timer["event_data"]:
                send("PUT", own, {"event_data": data})


def _through_sunday(found: "re.Match[str]") -> str:
    return ",".join(str(day % 7) for day in range(int(found[1]), 8, int(found[2])))


class BadArgument(TypeError):
    """Error of an event that does not become the arguments of a function."""

    retryable = False  #: the event fits in no attempt


def arguments(call: typing.Any, event: typing.Any) -> _Arguments:
    """Return the arguments of a function for an event, as objects of the types of its annotations.

    The event is a call with ``args`` and ``kwargs``, or else the argument of the only parameter, or else an object of
    arguments by name, or else the argument of the only parameter without a default. If all parameters have defaults,
    an object without their names, such as the event of a trigger, is left out. Raises TypeError if none fits.
    """
    signature = inspect.signature(call)
    if isinstance(event, dict) and event.get("trigger_type") == "TIMER":
        text = str(event.get("user_event"))
        event = json.loads(text) if text.startswith(_CALL) else event
    hints: dict[str, typing.Any] = {}
    with suppress(NameError):  # of names that only type checkers import
        hints = typing.get_type_hints(call)
    if isinstance(event, dict) and event.keys() == {"args", "kwargs"}:
        args = [*map(_grouped, event["args"][:1]), *event["args"][1:]]
        return _converted(signature.bind(*args, **event["kwargs"]), hints)
    event, parameters = _grouped(event), signature.parameters
    needs = any(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters.values())
    named = None
    try:
        named = signature.bind(**({} if event is None else event))
    except TypeError as error:
        problem = error
    only = len(parameters) == 1 and (needs or hints.keys() & parameters.keys())
    if only or (needs and named is None):
        try:
            return _converted(signature.bind(event), hints)
        except TypeError as error:
            problem = error
    if named is not None:
        return _converted(named, hints)
    if needs or parameters.keys() & (event if isinstance(event, dict) else parameters):
        raise problem
    return (), {}


def requested(request: typing.Any) -> "dict[str, object]":
    """Return the call with the arguments in the body, query and path of a request. Later ones replace earlier ones."""
    sent = request["body"]
    body = base64.b64decode(sent).decode("utf-8", "replace") if request["isBase64Encoded"] else sent
    members, form = None, dict[str, list[str]]()
    with suppress(ValueError, RecursionError):
        members = json.loads(body.strip() or "{}")
    if not isinstance(members, dict):
        if "urlencoded" not in request["headers"].get("content-type", ""):
            raise TypeError("the body is neither a JSON object nor a form (application/x-www-form-urlencoded)")
        members, form = {}, parse_qs(body, keep_blank_values=True)
    for name, text in {**form, **request["queryStringParameters"], **request["pathParameters"]}.items():
        texts = [*map(_Text, [text] if isinstance(text, str) else text)]
        members[name] = texts if texts[1:] else texts[0]
    return {"args": [], "kwargs": members}


def _grouped(event: typing.Any) -> typing.Any:
    """Return the group that a first argument describes, as an object, or the argument."""
    found = event.get("group") if isinstance(event, dict) and len(event) == 1 else None
    is_group = isinstance(found, dict) and found.keys() >= {"id", "total", "done", "failed"}
    return _GROUP(event) if is_group and _GROUP else event


def _converted(bound: inspect.BoundArguments, hints: "dict[str, typing.Any]") -> _Arguments:
    for name, value in bound.arguments.items():
        kind, hint = bound.signature.parameters[name].kind, hints.get(name, typing.Any)
        try:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(convert(argument, hint) for argument in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: convert(argument, hint) for key, argument in value.items()}
            else:
                bound.arguments[name] = convert(value, hint)
        except Exception as error:
            raise TypeError(f"argument `{name}` is {value!r:.80}: {error}") from None
    return bound.args, bound.kwargs


def result_text(value: object) -> str:
    """Return a result as JSON text, which programs read by the return annotation."""
    return json.dumps(plain(value), ensure_ascii=False, default=_refuse)


def reply_text(value: object, status: int = 200) -> str:
    """Return a result as the reply of a gateway: the JSON of its body, unless it is an object with ``statusCode``."""
    value = plain(value)
    if not isinstance(value, dict) or "statusCode" not in value:
        value = {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": result_text(value)}
    return result_text(value)


def _refuse(value: object) -> typing.NoReturn:
    hint = ": return its tolist()" if hasattr(value, "tolist") else ""
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable{hint}")


def plain(value: typing.Any) -> typing.Any:
    """Return a value as objects of JSON, in the form in which msgspec writes them."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
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
    """Return a value of JSON as an object of the type ``hint``. Raises TypeError and others if it is none."""
    origin = typing.get_origin(hint)
    if isinstance(value, _Text):
        for read in (str, json.loads, _FLAGS.__getitem__, lambda text: [text]):
            with suppress(Exception):
                return convert(read(value), hint)
        value = str(value)
    if isinstance(value, _GROUP):
        return value
    if hint in (typing.Any, object) or (value is None and hint in (None, type(None))):
        return value
    if hasattr(origin or hint, "__struct_fields__"):
        return sys.modules["msgspec"].convert(value, hint, dec_hook=lambda kind, item: convert(item, kind))
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


def _checked(value: typing.Any, fits: bool, name: str) -> typing.Any:
    if not fits:
        raise TypeError(f"{value!r:.80} is no {name}")
    return value


def _convert_class(value: typing.Any, kind: typing.Any) -> typing.Any:
    has_names = dataclasses.is_dataclass(kind) or hasattr(kind, "__total__")
    form = (dict,) if has_names else next(form for bases, form in _FORMS if issubclass(kind, bases))
    fits = type(value) in form or object in form
    _checked(value, fits and not (issubclass(kind, int) and value % 1), kind.__name__)
    if has_names:
        hints = typing.get_type_hints(kind)
        computed = {field.name for field in getattr(kind, "__dataclass_fields__", {}).values() if not field.init}
        taken = hints.keys() - computed
        return kind(**{name: convert(item, hints[name]) for name, item in value.items() if name in taken})
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        _checked(value, len(value) <= len(kind._fields), kind.__name__)
        return kind(*(convert(item, hints.get(name, typing.Any)) for name, item in zip(kind._fields, value)))
    if issubclass(kind, enum.Enum):
        return kind(value)
    if issubclass(kind, (datetime, time)):
        return kind.fromisoformat(value.replace("Z", "+00:00"))
    if issubclass(kind, date):
        return kind.fromisoformat(value)
    if issubclass(kind, timedelta):
        return _duration(value)
    if issubclass(kind, (bytes, bytearray)):
        return kind(base64.b64decode(value, validate=True))
    return value if isinstance(value, kind) else kind(value)


#: Types of JSON from which objects of classes are made.
_FORMS: "tuple[tuple[typing.Any, tuple[type, ...]], ...]" = (
    (enum.Enum, (object,)),
    ((str, date, time, timedelta, bytes, bytearray, UUID, PurePath), (str,)),
    (bool, (bool,)),
    ((int, float), (int, float)),
    (dict, (dict,)),
    ((list, tuple, set, frozenset), (list,)),
    (object, (object,)),
)


def _convert_generic(value: typing.Any, origin: typing.Any, args: "tuple[typing.Any, ...]") -> typing.Any:
    if origin in _UNIONS:
        return _convert_union(value, args)
    if origin is typing.Literal:
        return _checked(value, value in args, f"one of {args}")
    if not isinstance(origin, type):  # Annotated and others that name a type first
        return convert(value, args[0])
    if not args:  # typing.List without the type of its items
        return convert(value, origin)
    if issubclass(origin, Mapping):
        key, kind = args
        _checked(value, isinstance(value, dict), "object")
        return {_convert_key(name, key): convert(item, kind) for name, item in value.items()}
    _checked(value, isinstance(value, list), "list")
    if issubclass(origin, tuple) and Ellipsis not in args:
        _checked(value, len(value) == len(args), f"list of {len(args)}")
        return tuple(convert(item, kind) for item, kind in zip(value, args))
    items = [convert(item, args[0]) for item in value]
    return origin(items) if origin in (set, frozenset, tuple) else items


#: Unions are of two kinds since Python 3.10.
_UNIONS = (typing.Union, *((type(int | str),) if sys.version_info >= (3, 10) else ()))


def _convert_union(value: typing.Any, kinds: "tuple[typing.Any, ...]") -> typing.Any:
    """Return a value as the first type of a union that fits: one of the same class before all others."""
    if type(value) in kinds:
        return value
    for kind in kinds:
        with suppress(Exception):
            return convert(value, kind)
    return _checked(value, False, " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds))


def _convert_key(name: str, kind: typing.Any) -> typing.Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(member for member in kind if str(plain(member)) == name)
    return int(name) if kind is int else float(name) if kind is float else convert(name, kind)


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    days, hours, minutes = (int(part or 0) for part in match.groups()[1:4])
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=float(match[5] or 0))
    return -length if match[1] == "-" else length
