"""Asynchronous settings of a function (retries, maximum age, destinations) and its status log (FunctionGraph API)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType

from engine.functions.catalog import Catalog
from engine.http.api.decoding import given_fields
from engine.http.api.paging import MAX_SETTINGS, PAGE, PageInfo, page_of
from engine.http.api.routing import FUNCTION, FUNCTIONS, LONG_LIMIT, ApiFamily, BodyCall, Call, operation, read
from engine.http.api.times import zoned_time
from engine.logs.feed import LogBoard
from engine.logs.target import LogTarget, status_log_target_of
from engine.model import AsyncSettings, DestinationSpec, Function
from engine.model.limits import EventAge, Label, Param, Retries, words
from engine.model.retry_rules import RetryRule
from engine.pipeline.status_log import StatusLogWorker

_SETTINGS = f"{FUNCTION}/async-invoke-config"


class DestinationConfig(Struct, frozen=True, kw_only=True):
    destination: Label = ""
    param: Param = ""


class Destinations(Struct, frozen=True, kw_only=True, omit_defaults=True):
    on_success: DestinationConfig | None = None
    on_failure: DestinationConfig | None = None


class CustomLog(Struct, frozen=True, kw_only=True):
    """Log group and log stream that the client chose for the status log. Used if both ids are given."""

    log_group_id: Annotated[Label, words("Id of the group")] | UnsetType = UNSET
    log_group_name: Annotated[Label, words("Log group")] | UnsetType = UNSET
    log_stream_id: Annotated[Label, words("Id of the stream")] | UnsetType = UNSET
    log_stream_name: Annotated[Label, words("Log stream")] | UnsetType = UNSET


class AsyncSettingsBody(CustomLog, frozen=True, kw_only=True):
    """Body of a PUT request, which replaces all asynchronous settings: absent fields get their default values.

    Only retry rules stay if they are absent.
    """

    max_async_event_age_in_seconds: EventAge = AsyncSettings().max_age
    max_async_retry_attempts: Retries = AsyncSettings().max_retries
    destination_config: Destinations = Destinations()
    enable_async_status_log: Annotated[bool, words("Write each state to the status log")] = False
    #: Ours: the first that matches an error decides about its retry. If absent, as the vendor's clients send it, the
    #: stored rules stay.
    retry_rules: tuple[RetryRule, ...] | UnsetType = UNSET


class AsyncSettingsReply(CustomLog, frozen=True, kw_only=True):
    func_urn: str
    max_async_event_age_in_seconds: int
    max_async_retry_attempts: int
    destination_config: Destinations
    enable_async_status_log: bool
    created_time: str
    last_modified: str
    retry_rules: tuple[RetryRule, ...] | UnsetType = UNSET  #: absent if there are none


class SettingsShown(Struct, frozen=True, kw_only=True):
    """Asynchronous settings of a version, as a part of replies about the version."""

    max_async_event_age_in_seconds: int
    max_async_retry_attempts: int
    destination_config: Destinations
    created_time: str
    last_modified: str
    retry_rules: tuple[RetryRule, ...] | UnsetType = UNSET  #: absent if there are none


class AsyncSettingsList(Struct, frozen=True, kw_only=True):
    async_invoke_configs: list[AsyncSettingsReply]
    count: int
    page_info: PageInfo


class AsyncSettingsApi(ApiFamily):
    def __init__(self, catalog: Catalog, logs: LogBoard, states: StatusLogWorker, region: str) -> None:
        self._catalog, self._logs, self._states, self._region = catalog, logs, states, region

    @operation(
        "UpdateFunctionAsyncInvokeConfig",
        "PUT",
        _SETTINGS,
        AsyncSettingsBody,
        AsyncSettingsReply,
        limit=LONG_LIMIT,
    )
    async def put(self, call: BodyCall[AsyncSettingsBody]) -> AsyncSettingsReply:
        urn = call.urn
        function = self._catalog.find(urn)
        body = await call.read()
        settings = await self._catalog.put_settings(urn, _settings(body), keep_rules=body.retry_rules is UNSET)
        if settings.status_log:
            target = status_log_target_of(function.project, settings.details)
            await self._logs.status_log(function.project, again=True, target=target)
        await self._states.follow(function.function_id)
        return self._reply(function, settings)

    @read("ShowFunctionAsyncInvokeConfig", _SETTINGS, AsyncSettingsReply)
    async def show(self, call: Call) -> AsyncSettingsReply:
        return self._reply(self._catalog.find(call.urn), self._catalog.show_settings(call.urn))

    @operation("DeleteFunctionAsyncInvokeConfig", "DELETE", _SETTINGS, status=204)
    async def delete(self, call: Call) -> None:
        function = self._catalog.find(call.urn)
        await self._catalog.delete_settings(call.urn)
        await self._states.follow(function.function_id)

    @read("ListFunctionAsyncInvokeConfig", f"{FUNCTION}/async-invoke-configs", AsyncSettingsList, query=PAGE)
    async def list_all(self, call: Call) -> AsyncSettingsList:
        page = page_of(call, self._catalog.settings_by_version(call.urn), "limit", maximum=MAX_SETTINGS, default=10)
        configs = [self._reply(function, settings) for function, settings in page.items]
        return AsyncSettingsList(async_invoke_configs=configs, count=page.count, page_info=page.info)

    @operation("EnableAsyncStatusLog", "POST", f"{FUNCTIONS}/enable-async-status-logs")
    async def enable_status_log(self, call: Call) -> None:
        """Create the project's log group and log stream for states, unless they exist.

        States are written to them for functions whose asynchronous settings enable it.
        """
        await self._logs.status_log(call.project, again=True)

    @read("ShowProjectAsyncStatusLogInfo", f"{FUNCTIONS}/async-status-log-detail", LogTarget)
    async def show_status_log(self, call: Call) -> LogTarget:
        return await self._logs.status_log(call.project, again=False)

    def _reply(self, function: Function, settings: AsyncSettings) -> AsyncSettingsReply:
        return AsyncSettingsReply(
            func_urn=str(function.urn(self._region)),
            enable_async_status_log=settings.status_log,
            **_shown(settings),
            **settings.details,
        )


def _settings(body: AsyncSettingsBody) -> AsyncSettings:
    return AsyncSettings(
        max_age=body.max_async_event_age_in_seconds,
        max_retries=body.max_async_retry_attempts,
        on_success=_spec(body.destination_config.on_success),
        on_failure=_spec(body.destination_config.on_failure),
        status_log=body.enable_async_status_log,
        retry_rules=() if body.retry_rules is UNSET else body.retry_rules,
        details=given_fields(body, CustomLog.__struct_fields__),
    )


def _spec(destination: DestinationConfig | None) -> DestinationSpec | None:
    # The vendor's console sends an empty destination for "none".
    if destination is None or not destination.destination:
        return None
    return DestinationSpec(destination=destination.destination, param=destination.param or "{}")


def settings_shown(settings: AsyncSettings) -> SettingsShown:
    return SettingsShown(**_shown(settings))


def _shown(settings: AsyncSettings) -> dict[str, Any]:
    """Return the fields that all replies about asynchronous settings have."""
    on_success, on_failure = _destination(settings.on_success), _destination(settings.on_failure)
    return {
        "max_async_event_age_in_seconds": settings.max_age,
        "max_async_retry_attempts": settings.max_retries,
        "destination_config": Destinations(on_success=on_success, on_failure=on_failure),
        "created_time": zoned_time(settings.created_at),
        "last_modified": zoned_time(settings.modified_at),
        "retry_rules": settings.retry_rules or UNSET,
    }


def _destination(spec: DestinationSpec | None) -> DestinationConfig | None:
    return DestinationConfig(destination=spec.destination, param=spec.param) if spec else None
