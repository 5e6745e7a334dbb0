"""What asynchronous settings may say (spec functiongraph_api, section 3), and which functions they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from engine.errors import InvalidField
from engine.model import AsyncSettings, DestinationSpec, Function
from engine.model.limits import EVENT_AGES, RETRIES
from engine.model.urn import FunctionUrn, parse_urn

FUNCTION = "FunctionGraph"
VENDOR_KINDS = ("OBS", "SMN", "DIS")


def check_settings(
    settings: AsyncSettings,
    function: Function,
    region: str,
    check_destination: Callable[[DestinationSpec], None] | None,
) -> set[tuple[str, str, str]]:
    """Raises InvalidField; gives the functions that outcomes go to, as (project, package, name)."""
    for field, value, (low, high) in (
        ("max_async_event_age_in_seconds", settings.max_age, EVENT_AGES),
        ("max_async_retry_attempts", settings.max_retries, RETRIES),
    ):
        if not low <= value <= high:
            raise InvalidField(field, value, f"must be from {low} to {high}")
    for spec in _specs(settings):
        read_param(spec)
        (check_destination or _check_kind)(spec)
    targets = [_target(spec, region, function.project) for spec in _specs(settings) if _is_function(spec)]
    for urn in targets:
        if urn.project != function.project:
            raise InvalidField("func_urn", str(urn), "must be a function of the same project")
    return {(urn.project, urn.package, urn.name) for urn in targets}


def function_targets(settings: AsyncSettings, region: str, project: str) -> set[tuple[str, str, str]]:
    """The functions that settings checked before lead to."""
    urns = (_target(spec, region, project) for spec in _specs(settings) if _is_function(spec))
    return {(urn.project, urn.package, urn.name) for urn in urns}


def read_param(spec: DestinationSpec) -> dict[str, Any]:
    """A destination's ``param``, which is JSON inside a string."""
    try:
        return msgspec.json.decode(spec.param.encode("utf-8", "surrogatepass"), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidField("param", spec.param, "must be the text of a JSON object") from None


def _target(spec: DestinationSpec, region: str, project: str) -> FunctionUrn:
    urn = read_param(spec).get("func_urn")
    if not isinstance(urn, str):
        raise InvalidField("param", spec.param, 'a FunctionGraph destination needs {"func_urn": "<function URN>"}')
    return parse_urn(urn, region=region, project=project)


def _specs(settings: AsyncSettings) -> Iterator[DestinationSpec]:
    if settings.on_success:
        yield settings.on_success
    if settings.on_failure:
        yield settings.on_failure


def _is_function(spec: DestinationSpec) -> bool:
    # In any case, as plugins are found: else another spelling would slip past the search for loops.
    return spec.destination.upper() == FUNCTION.upper()


def _check_kind(spec: DestinationSpec) -> None:
    if spec.destination not in VENDOR_KINDS and not _is_function(spec):
        known = ", ".join((*VENDOR_KINDS, FUNCTION))
        raise InvalidField("destination", spec.destination, f"known are {known}")
