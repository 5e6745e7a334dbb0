"""Asynchronous settings of a function (retries, maximum age, destinations) and its status log (FunctionGraph API)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.functions.catalog import Catalog
from engine.http.api.paging import MAX_SETTINGS, PageInfo, page_of
from engine.http.api.routing import BASE, LONG_LIMIT, Call, Resource
from engine.http.api.times import zoned_time
from engine.logs.feed import LogBoard
from engine.logs.target import status_log_target_of
from engine.model import AsyncSettings, DestinationSpec, Function
from engine.model.limits import EventAge, Label, Param, Retries
from engine.model.retry_rules import RetryRule
from engine.pipeline.status_log import StatusLogWorker


class DestinationConfig(Struct, frozen=True, kw_only=True):
    destination: Label = ""
    param: Param = ""


class Destinations(Struct, frozen=True, kw_only=True, omit_defaults=True):
    on_success: DestinationConfig | None = None
    on_failure: DestinationConfig | None = None


class CustomLog(Struct, frozen=True, kw_only=True):
    """Log group and log stream that the client chose for the status log. Used if both ids are given."""

    log_group_id: Label | UnsetType = UNSET
    log_group_name: Label | UnsetType = UNSET
    log_stream_id: Label | UnsetType = UNSET
    log_stream_name: Label | UnsetType = UNSET


class AsyncSettingsBody(CustomLog, frozen=True, kw_only=True):
    """Body of a PUT request, which replaces all asynchronous settings: absent fields get their default values.

    Only retry rules stay if they are absent.
    """

    max_async_event_age_in_seconds: EventAge = AsyncSettings().max_age
    max_async_retry_attempts: Retries = AsyncSettings().max_retries
    destination_config: Destinations = Destinations()
    enable_async_status_log: bool = False
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


class AsyncSettingsApi:
    def __init__(self, catalog: Catalog, logs: LogBoard, states: StatusLogWorker, region: str) -> None:
        self._catalog, self._logs, self._states, self._region = catalog, logs, states, region

    def resources(self) -> list[Resource]:
        functions = f"{BASE}/functions"
        settings = {"PUT": self.put, "GET": self.show, "DELETE": self.delete}
        return [
            Resource(path=f"{functions}/{{function_urn}}/async-invoke-config", methods=settings),
            Resource(path=f"{functions}/{{function_urn}}/async-invoke-configs", methods={"GET": self.list_all}),
            Resource(path=f"{functions}/enable-async-status-logs", methods={"POST": self.enable_status_log}),
            Resource(path=f"{functions}/async-status-log-detail", methods={"GET": self.show_status_log}),
        ]

    async def put(self, call: Call) -> Reply:
        urn = call.urn
        function = self._catalog.find(urn)
        body = await call.read(AsyncSettingsBody, LONG_LIMIT)
        settings = await self._catalog.put_settings(urn, _settings(body), keep_rules=body.retry_rules is UNSET)
        if settings.status_log:
            target = status_log_target_of(function.project, settings.details)
            await self._logs.status_log(function.project, again=True, target=target)
        await self._states.follow(function.function_id)
        return json_reply(self._reply(function, settings))

    async def show(self, call: Call) -> Reply:
        return json_reply(self._reply(self._catalog.find(call.urn), self._catalog.show_settings(call.urn)))

    async def delete(self, call: Call) -> Reply:
        function = self._catalog.find(call.urn)
        await self._catalog.delete_settings(call.urn)
        await self._states.follow(function.function_id)
        return Reply(status=204)

    async def list_all(self, call: Call) -> Reply:
        page = page_of(call, self._catalog.settings_by_version(call.urn), "limit", maximum=MAX_SETTINGS, default=10)
        configs = [self._reply(function, settings) for function, settings in page.items]
        return json_reply(AsyncSettingsList(async_invoke_configs=configs, count=page.count, page_info=page.info))

    async def enable_status_log(self, call: Call) -> Reply:
        """Create the project's log group and log stream for states, unless they exist.

        States are written to them for functions whose asynchronous settings enable it.
        """
        await self._logs.status_log(call.project, again=True)
        return Reply()

    async def show_status_log(self, call: Call) -> Reply:
        return json_reply(await self._logs.status_log(call.project, again=False))

    def _reply(self, function: Function, settings: AsyncSettings) -> AsyncSettingsReply:
        return AsyncSettingsReply(
            func_urn=str(function.urn(self._region)),
            max_async_event_age_in_seconds=settings.max_age,
            max_async_retry_attempts=settings.max_retries,
            destination_config=_destinations(settings),
            enable_async_status_log=settings.status_log,
            created_time=zoned_time(settings.created_at),
            last_modified=zoned_time(settings.modified_at),
            retry_rules=settings.retry_rules or UNSET,
            **settings.details,
        )


def _settings(body: AsyncSettingsBody) -> AsyncSettings:
    given = {name: getattr(body, name) for name in CustomLog.__struct_fields__}
    details: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}
    return AsyncSettings(
        max_age=body.max_async_event_age_in_seconds,
        max_retries=body.max_async_retry_attempts,
        on_success=_spec(body.destination_config.on_success),
        on_failure=_spec(body.destination_config.on_failure),
        status_log=body.enable_async_status_log,
        retry_rules=() if body.retry_rules is UNSET else body.retry_rules,
        details=details,
    )


def _spec(destination: DestinationConfig | None) -> DestinationSpec | None:
    # The vendor's console sends an empty destination for "none".
    if destination is None or not destination.destination:
        return None
    return DestinationSpec(destination=destination.destination, param=destination.param or "{}")


def settings_shown(settings: AsyncSettings) -> SettingsShown:
    return SettingsShown(
        max_async_event_age_in_seconds=settings.max_age,
        max_async_retry_attempts=settings.max_retries,
        destination_config=_destinations(settings),
        created_time=zoned_time(settings.created_at),
        last_modified=zoned_time(settings.modified_at),
        retry_rules=settings.retry_rules or UNSET,
    )


def _destinations(settings: AsyncSettings) -> Destinations:
    return Destinations(on_success=_destination(settings.on_success), on_failure=_destination(settings.on_failure))


def _destination(spec: DestinationSpec | None) -> DestinationConfig | None:
    return DestinationConfig(destination=spec.destination, param=spec.param) if spec else None
