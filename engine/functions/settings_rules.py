"""Validation of asynchronous settings (FunctionGraph API: UpdateFunctionAsyncInvokeConfig).

Also finds the functions that settings name as destinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from engine.errors import InvalidField
from engine.functions.function_rules import CheckDestination
from engine.model import ENGINE_FAULTS, AsyncSettings, Code, DestinationSpec, Function
from engine.model.limits import EVENT_AGES, RETRIES
from engine.model.retry_rules import MAX_RULES, RetryRule
from engine.model.urn import FunctionUrn, parse_urn

FUNCTION = "FunctionGraph"
#: Codes that no retry rule can match: successes, cancelled and discarded invocations, and errors of the engine.
_NEVER_MATCHED = ENGINE_FAULTS | {Code.OK, Code.CANCELLED, Code.FUNCTION_MISSING, Code.EXPIRED}
VENDOR_KINDS = ("OBS", "SMN", "DIS")


def check_settings(
    settings: AsyncSettings,
    function: Function,
    region: str,
    check_destination: CheckDestination | None,
) -> set[tuple[str, str, str]]:
    """Check the asynchronous settings of ``function``. Return the functions that they name as destinations.

    Each is a tuple (project, package, name). ``check_destination`` raises InvalidField for a destination that no plugin
    accepts; without it, only the kind is checked. Raises InvalidField if a value is out of range, or if a destination
    is invalid or a function of another project.
    """
    for field, value, (low, high) in (
        ("max_async_event_age_in_seconds", settings.max_age, EVENT_AGES),
        ("max_async_retry_attempts", settings.max_retries, RETRIES),
    ):
        if not low <= value <= high:
            raise InvalidField(field, value, f"must be from {low} to {high}")
    _check_retry_rules(settings.retry_rules)
    check = check_destination or _check_kind
    found: set[tuple[str, str, str]] = set()
    for condition, spec in (("on_success", settings.on_success), ("on_failure", settings.on_failure)):
        if spec is not None:
            with _errors_of(f"destination_config.{condition}"):
                found |= _check_destination(spec, region, function.project, check)
    return found


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Let each InvalidField of the block name its field with ``path`` before it."""
    try:
        yield
    except InvalidField as error:
        raise InvalidField(f"{path}.{error.field}", error.value, error.allowed) from None


def _check_destination(
    spec: DestinationSpec, region: str, project: str, check: CheckDestination
) -> set[tuple[str, str, str]]:
    """Check one destination. Return the function that it names, or nothing."""
    read_param(spec)
    check(spec)
    if not _is_function(spec):
        return set()
    urn = _target(spec, region, project)
    if urn.project != project:
        raise InvalidField("param.func_urn", str(urn), "must be a function of the same project")
    return {(urn.project, urn.package, urn.name)}


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
    urns = (_target(spec, region, project) for spec in _specs(settings) if _is_function(spec))
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


def _specs(settings: AsyncSettings) -> Iterator[DestinationSpec]:
    if settings.on_success:
        yield settings.on_success
    if settings.on_failure:
        yield settings.on_failure


def _is_function(spec: DestinationSpec) -> bool:
    # Case is ignored, as in the search for plugins; otherwise another spelling would bypass the check for loops.
    return spec.destination.upper() == FUNCTION.upper()


def _check_kind(spec: DestinationSpec) -> None:
    if spec.destination not in VENDOR_KINDS and not _is_function(spec):
        raise InvalidField("destination", spec.destination, f"must be one of {', '.join((*VENDOR_KINDS, FUNCTION))}")
