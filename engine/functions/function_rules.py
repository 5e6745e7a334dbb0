"""Validation of functions and of their asynchronous settings, against the limits that FunctionGraph documents.

The limits are those of CreateFunction and UpdateFunctionAsyncInvokeConfig. Errors contain the name of the invalid field
as in the API.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.errors import BadDependency, CodeChanged, FunctionOfApp, InvalidField, TooManyVariables, VariablesTooLarge
from engine.isolation.folders import Folder
from engine.model import ENGINE_FAULTS, AsyncSettings, Code, DestinationSpec, Function, limits
from engine.model.quotas import Quotas
from engine.model.retry_rules import MAX_RULES, RetryRule
from engine.model.urn import LATEST, NAME, FunctionUrn, parse_urn
from engine.runtimes.catalog import Family, family_of, find_runtime, refusal_of

DETAILS_SIZE = 64 << 10  #: bytes as JSON: every version keeps them in memory, and every list shows them
PER_KEY = (1, 1_000)  #: invocations of one ordering key at a time
WEIGHTS = (0.001, 1_000.0)  #: a wider range would lose shares to rounding in the queue's virtual time
OWN = "functiond"  #: key in ``details`` of this engine's own settings
FUNCTION = "FunctionGraph"  #: kind of a destination that is a function
VENDOR_KINDS = ("OBS", "SMN", "DIS")
#: Codes that no retry rule can match: successes, cancelled and discarded invocations, and errors of the engine.
_NEVER_MATCHED = ENGINE_FAULTS | {Code.OK, Code.CANCELLED, Code.FUNCTION_MISSING, Code.EXPIRED, Code.CALL_BEFORE}

_HANDLER = re.compile(r"[\w-]+([./][\w-]+)*\.[A-Za-z_]\w*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)

MayRunLong = Callable[[FunctionUrn], bool]
CheckDestination = Callable[[DestinationSpec, Function], None]  #: with the function that has the destination
CheckRuntime = Callable[[str], Awaitable[None]]


def listed(names: Iterable[str]) -> MayRunLong:
    """Return a predicate on URNs that is true for the functions that ``names`` lists.

    An entry of ``names`` is name, package:name, a URN with or without version, or ``*``, which stands for all
    functions.
    """
    entries = frozenset(names)

    def on_list(urn: FunctionUrn) -> bool:
        return not entries.isdisjoint(("*", urn.name, f"{urn.package}:{urn.name}", urn.function, str(urn)))

    return on_list


class OwnSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a function that only this engine has, as its ``details`` have them."""

    app: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*\Z")] = ""
    priority_cap: Annotated[int, Meta(ge=0, le=9)] = 9
    per_key: Annotated[int, Meta(ge=PER_KEY[0], le=PER_KEY[1])] = 1
    weight: Annotated[float, Meta(ge=WEIGHTS[0], le=WEIGHTS[1])] = 1.0
    folders: list[str] = []  #: of the host, see ``engine.isolation.folders``
    http: bool = False  #: an HTTP function without a server of its own


class FunctionRules(Struct, frozen=True, kw_only=True):
    """Rules of one engine for functions: limits from its settings, and checks that other components make."""

    max_timeout: int = 900  #: seconds
    may_run_long: MayRunLong = listed(())  #: whether a function may exceed ``max_timeout``
    folders: Mapping[str, Folder] = {}  #: of the host that functions may ask for, by name
    check_destination: CheckDestination | None = None  #: raises for a wrong one; None: only the kind is checked
    check_runtime: CheckRuntime | None = None  #: raises InvalidField if this machine has no interpreter; None: no check
    limits: Quotas = Quotas()


def check_function(function: Function, urn: FunctionUrn, rules: FunctionRules) -> None:
    """Raise an error for the first invalid field of a function.

    Raises TooManyVariables or VariablesTooLarge if the number or the size of its environment variables is over the
    limit; InvalidField for any other field. Timeouts over ``rules.max_timeout`` seconds are invalid unless
    ``rules.may_run_long(urn)``.
    """
    _check_names(function)
    _check_runtime(function)
    _check_timeout(function, urn, rules.max_timeout, rules.may_run_long)
    if function.memory_size not in limits.MEMORY_SIZES:
        raise InvalidField(
            "memory_size", function.memory_size, f"must be one of {', '.join(map(str, limits.MEMORY_SIZES))}"
        )
    if len(function.description) > limits.DESCRIPTION:
        raise InvalidField("description", function.description, f"may have {limits.DESCRIPTION} characters")
    _check_range("concurrency", function.max_instances, *limits.INSTANCES)
    _check_range("concurrent_num", function.concurrent_num, *limits.REQUESTS)
    _check_range("initializer_timeout", function.initializer_timeout, *limits.INITIALIZER_TIMEOUTS)
    if function.pre_stop_timeout is not None:
        _check_range("pre_stop_timeout", function.pre_stop_timeout, *limits.PRE_STOP_TIMEOUTS)
    _check_variables("user_data", function.user_data, rules.limits)
    _check_variables("encrypted_user_data", function.encrypted_user_data, rules.limits)
    _check_own(function.details.get(OWN, {}))
    _check_details(function.details)


def check_dependencies(function: Function) -> None:
    """Raise BadDependency unless every dependency of the function is made for the function's runtime.

    A package made for one runtime may contain files that another runtime cannot load.
    """
    for used in function.dependencies:
        if used.runtime != function.runtime:
            allowed = f"is for {used.runtime}: a function of runtime {function.runtime} needs packages made for that"
            raise BadDependency("depend_version_list", f"{used.name} {used.version}", allowed)


def priority_cap(function: Function) -> int:
    """Return the highest priority that callers of this function may request, 0 to 9."""
    cap: int = function.details.get(OWN, {}).get("priority_cap", 9)
    return cap


def weight(function: Function) -> float:
    """Return the function's share of the slots, relative to the weights of other functions; 1.0 by default."""
    share: float = function.details.get(OWN, {}).get("weight", 1.0)
    return share


def per_key(function: Function) -> int:
    """Return how many invocations of each ordering key run at a time, 1 by default."""
    most: int = function.details.get(OWN, {}).get("per_key", 1)
    return most


def is_http(function: Function) -> bool:
    """Return whether the function gets the requests of gateways with the bytes that clients sent."""
    own: bool = function.details.get(OWN, {}).get("http", False)
    return own or family_of(function.runtime) is Family.HTTP


def app_of(function: Function) -> str:
    """Return the name of the app to which the function belongs; empty: to none."""
    app: str = function.details.get(OWN, {}).get("app", "")
    return app


class Condition(Struct, frozen=True, kw_only=True):
    """Condition of a request that creates, changes or deletes a function: its present code, and its app."""

    digest: str | None = None  #: of the code; None: of any
    app: str | None = None  #: to which the function is to belong; None: the function keeps its app
    take_over: bool = False  #: also from another app

    def check(self, function: Function) -> None:
        """Raise CodeChanged if the function has other code, FunctionOfApp if it belongs to another app."""
        if self.digest not in (None, function.code.digest):
            raise CodeChanged(function.code.digest)
        if self.app is not None and not self.take_over and app_of(function) not in ("", self.app):
            raise FunctionOfApp(function.name, app_of(function))

    def applied(self, details: dict[str, Any], old: Function) -> dict[str, Any]:
        """Check the condition, and return ``details`` with the app of the function. These may name one themselves."""
        stored: dict[str, Any] = old.details.get(OWN, {})
        given: dict[str, Any] = details.get(OWN, stored)
        app = next(app for app in (self.app, given.get("app"), app_of(old)) if app is not None)
        msgspec.structs.replace(self, app=app).check(old)
        own = {name: value for name, value in given.items() if name != "app"} | ({"app": app} if app else {})
        return details if own == given else {**details, OWN: own}


ALWAYS = Condition()


def equal_for_instances(one: Function, other: Function) -> bool:
    """Return whether an instance started for one state of a function may serve the other.

    Fields that do not affect execution may differ, such as descriptions. All ``details`` except this engine's own must
    be equal, and the folders.
    """
    return _without_unused(one) == _without_unused(other)


def equal_as_versions(one: Function, other: Function) -> bool:
    """Return whether two states of a function are equal in code and configuration, so that one version suffices."""
    return equal_for_instances(one, other) and (one.description, one.details) == (other.description, other.details)


def _without_unused(function: Function) -> Function:
    """Return a copy of the function, for comparison, with fixed values in fields that do not affect execution."""
    return msgspec.structs.replace(
        function,
        version=LATEST,
        revision=0,
        created_key=0,
        max_instances=0,
        description="",
        version_description="",
        collected=False,
        created_at=0.0,
        modified_at=0.0,
        details=function.details | {OWN: function.details.get(OWN, {}).get("folders", [])},
    )


def _check_names(function: Function) -> None:
    for field, name in (("func_name", function.name), ("package", function.package)):
        if not NAME.fullmatch(name):
            raise InvalidField(field, name, limits.NAME_RULE)


def _check_runtime(function: Function) -> None:
    runtime = find_runtime(function.runtime)
    if runtime is None or runtime.family is None:
        raise InvalidField("runtime", function.runtime, refusal_of(function.runtime))
    check_handler("handler", function.handler, runtime.family)
    for field, handler in (
        ("initializer_handler", function.initializer_handler),
        ("pre_stop_handler", function.pre_stop_handler),
    ):
        if handler:
            check_handler(field, handler, runtime.family)
    if runtime.family is Family.LAMBDA and function.concurrent_num > 1:
        allowed = "must be 1: the runtimes of Lambda take one request at a time"
        raise InvalidField("concurrent_num", function.concurrent_num, allowed)


def check_handler(field: str, handler: str, family: Family) -> None:
    """Raise InvalidField for ``field`` unless the handler has the form that runtimes of ``family`` need.

    An interpreted runtime, such as Python, needs ``file.function``. Runtimes that start a program named ``bootstrap``
    accept any printable text.
    """
    if not family.interpreted:
        if not (0 < len(handler) <= limits.HANDLER and handler.isprintable()):
            raise InvalidField(field, handler, f"needs 1 to {limits.HANDLER} printable characters")
    elif not 3 <= len(handler) <= limits.HANDLER or not _HANDLER.fullmatch(handler):
        raise InvalidField(field, handler, f"needs the form file.function, 3 to {limits.HANDLER} characters")


def _check_timeout(function: Function, urn: FunctionUrn, max_timeout: int, may_run_long: MayRunLong) -> None:
    _check_range("timeout", function.timeout, *limits.TIMEOUTS)
    if function.timeout > max_timeout and not may_run_long(urn):
        hint = (
            f"may be up to {max_timeout} s, and longer if the setting executor.long_time_functions lists the function"
        )
        raise InvalidField("timeout", function.timeout, hint)


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidField(field, value, f"must be from {low} to {high}")


def _check_variables(field: str, variables: dict[str, str], quotas: Quotas) -> None:
    if len(variables) > quotas.variables:
        raise TooManyVariables(field, len(variables), quotas.variables)
    size = sum(len(name) + len(value) for name, value in variables.items())
    if size > quotas.variables_size:
        raise VariablesTooLarge(field, size, quotas.variables_size)
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidField(field, name, "a variable's name needs a letter or _, then letters, digits and _")
        if "\0" in value:
            raise InvalidField(field, name, "a variable's value may not hold a zero byte")


def _check_own(own: Any) -> None:
    try:
        msgspec.convert(own, OwnSettings)
    except msgspec.ValidationError as error:
        problem, _, name = str(error).rstrip("`").partition(" - at `$.")
        value = own.get(name, own) if isinstance(own, dict) else own
        hint = "priority_cap is from 0 to 9, per_key from {} to {}, weight from {:g} to {:g}, app up to 64 letters"
        hint = f"{problem}; {hint.format(*PER_KEY, *WEIGHTS)}, digits, ., _ and -"
        raise InvalidField(f"{OWN}.{name}".rstrip("."), value, hint) from None


def _check_details(details: dict[str, Any]) -> None:
    sizes = {name: len(msgspec.json.encode(value)) for name, value in details.items()}
    if sum(sizes.values()) > DETAILS_SIZE:
        largest = max(sizes, key=lambda name: sizes[name])
        hint = f"all fields without effect in this engine may have {DETAILS_SIZE} bytes together"
        raise InvalidField(largest, f"{sizes[largest]} bytes", hint)


# --- asynchronous settings ----------------------------------------------------------------------------


def check_settings(
    settings: AsyncSettings, function: Function, region: str, check_destination: CheckDestination | None
) -> None:
    """Check the asynchronous settings of ``function``.

    ``check_destination`` raises InvalidField for a destination that no plugin accepts, and NotForProject for one that
    the project may not use; without it, only the kind is checked. Raises InvalidField if a value is out of range, or if
    a destination is invalid or a function of another project.
    """
    for field, value, (low, high) in (
        ("max_async_event_age_in_seconds", settings.max_age, limits.EVENT_AGES),
        ("max_async_retry_attempts", settings.max_retries, limits.RETRIES),
    ):
        if not low <= value <= high:
            raise InvalidField(field, value, f"must be from {low} to {high}")
    _check_retry_rules(settings.retry_rules)
    check = check_destination or _check_kind
    for condition, spec in (("on_success", settings.on_success), ("on_failure", settings.on_failure)):
        if spec is not None:
            try:
                _check_destination(spec, region, function, check)
            except InvalidField as error:
                field = f"destination_config.{condition}.{error.field}"
                raise InvalidField(field, error.value, error.allowed) from None


def _check_destination(spec: DestinationSpec, region: str, function: Function, check: CheckDestination) -> None:
    read_param(spec)
    check(spec, function)
    project = function.project
    if _is_function(spec) and (urn := _target(spec, region, project)).project != project:
        raise InvalidField("param.func_urn", str(urn), "must be a function of the same project")


def _check_retry_rules(rules: tuple[RetryRule, ...]) -> None:
    if len(rules) > MAX_RULES:
        raise InvalidField("retry_rules", len(rules), f"must be at most {MAX_RULES} rules")
    for number, rule in enumerate(rules, 1):
        if rule.code and (rule.code in _NEVER_MATCHED or rule.code not in set(Code)):
            problem = "must be the code of an error of the function, such as 4002 or 4010"
            raise InvalidField(f"retry_rules[{number - 1}].code", rule.code, problem)
        if not rule.conditions and number < len(rules):
            problem = "must be the last rule: without a condition, it matches all errors"
            raise InvalidField(f"retry_rules[{number - 1}]", "{}", problem)
        if None not in (rule.base, rule.longest) and (rule.base or 0.0) > (rule.longest or 0.0):
            raise InvalidField(
                f"retry_rules[{number - 1}].longest", rule.longest, f"must be at least {rule.base:g}, its base"
            )


def function_targets(settings: AsyncSettings, region: str, project: str) -> set[tuple[str, str, str]]:
    """Return the functions that valid settings name as destinations, each as a tuple (project, package, name)."""
    specs = (settings.on_success, settings.on_failure)
    urns = (_target(spec, region, project) for spec in specs if spec is not None and _is_function(spec))
    return {(urn.project, urn.package, urn.name) for urn in urns}


def read_param(spec: DestinationSpec) -> dict[str, Any]:
    """Return the parameters of a destination, which are JSON text.

    Raise InvalidField unless the text is a JSON object.
    """
    try:
        return msgspec.json.decode(spec.param.encode("utf-8", "surrogatepass"), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidField("param", spec.param, "must be the text of a JSON object") from None


def _target(spec: DestinationSpec, region: str, project: str) -> FunctionUrn:
    urn = read_param(spec).get("func_urn")
    if not isinstance(urn, str):
        raise InvalidField("param", spec.param, 'a FunctionGraph destination needs {"func_urn": "<function URN>"}')
    try:
        return parse_urn(urn, region=region, project=project)
    except InvalidField as error:
        raise InvalidField("param.func_urn", error.value, error.allowed) from None


def _is_function(spec: DestinationSpec) -> bool:
    # Case is ignored, as in the search for plugins; otherwise another spelling would bypass the check for loops.
    return spec.destination.upper() == FUNCTION.upper()


def _check_kind(spec: DestinationSpec, function: Function) -> None:
    if spec.destination not in VENDOR_KINDS and not _is_function(spec):
        raise InvalidField("destination", spec.destination, f"must be one of {', '.join((*VENDOR_KINDS, FUNCTION))}")
