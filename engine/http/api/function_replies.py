"""Replies that describe functions or their versions. Replies about versions have further fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.http.api.async_settings import settings_shown
from engine.http.api.dependencies import dependency_reply
from engine.http.api.function_shapes import FuncCode, FunctionReply, PassthroughFields, Strategy, variables_text
from engine.http.api.times import zoned_time
from engine.model import AsyncSettings, Function
from engine.model.limits import cpu_of
from engine.runtimes.catalog import warning_of

LONG_TIME = 900  #: seconds; longer timeouts set ``long_time``
WARNING = b"X-Functiond-Warning"


def function_reply(function: Function, region: str, code: FuncCode | UnsetType = UNSET) -> FunctionReply:
    return FunctionReply(
        func_id=str(function.function_id),
        func_name=function.name,
        func_urn=str(function.urn(region)),
        resource_id=str(function.function_id),
        domain_id=function.project,
        namespace=function.project,
        project_name=region,
        package=function.package,
        version=function.version,
        runtime=function.runtime,
        handler=function.handler,
        memory_size=function.memory_size,
        cpu=cpu_of(function.memory_size),
        timeout=function.timeout,
        long_time=function.timeout > LONG_TIME,
        code_type=function.code.kind,
        code_filename=function.code.filename,
        code_url=function.code.url,
        code_size=function.code.size,
        digest=function.code.digest,
        image_name=_image_name(function),
        last_modified=zoned_time(function.modified_at),
        user_data=_as_given(function, "user_data", function.user_data),
        encrypted_user_data=_as_given(function, "encrypted_user_data", function.encrypted_user_data),
        description=function.description,
        initializer_handler=function.initializer_handler,
        initializer_timeout=function.initializer_timeout,
        pre_stop_handler=function.pre_stop_handler,
        pre_stop_timeout=UNSET if function.pre_stop_timeout is None else function.pre_stop_timeout,
        enable_dynamic_memory=function.dynamic_memory,
        strategy_config=Strategy(concurrency=function.max_instances, concurrent_num=function.concurrent_num),
        dependencies=[
            dependency_reply(dependency, shared=dependency.project != function.project)
            for dependency in function.dependencies
        ],
        depend_list=[dependency.dep_id for dependency in function.dependencies],
        log_group_id=_detail(function, "log_config", "group_id"),
        log_stream_id=_detail(function, "log_config", "stream_id"),
        func_vpc_id=_detail(function, "func_vpc", "vpc_id"),
        collected=function.collected,
        func_code=code,
        **_passthrough(function),
    )


def version_reply(function: Function, region: str, settings: AsyncSettings | None) -> FunctionReply:
    """Return the reply about a version, with its asynchronous settings; ``settings`` is None if it has none."""
    return replace(
        function_reply(function, region),
        version_description=function.version_description,
        concurrency=function.max_instances,
        concurrent_num=function.concurrent_num,
        function_async_config=UNSET if settings is None else settings_shown(settings),
    )


def with_warning(reply: Reply, function: Function) -> Reply:
    """Return the reply with a header that has the warning of the function's runtime, if there is one."""
    warning = warning_of(function.runtime)
    return replace(reply, headers=(*reply.headers, (WARNING, warning.encode()))) if warning else reply


def _passthrough(function: Function) -> dict[str, Any]:
    shown = {name: value for name, value in function.details.items() if name in PassthroughFields.__struct_fields__}
    return {"type": "v2", **shown}


def _as_given(function: Function, name: str, variables: dict[str, str]) -> str:
    """Return the text of the environment variables exactly as the client sent it.

    Clients compare this text with theirs. If no text is stored, ``variables`` are encoded as JSON.
    """
    given: str | None = function.details.get(name)
    return variables_text(variables) if given is None else given


def _detail(function: Function, table: str, name: str) -> str:
    return str(function.details.get(table, {}).get(name, ""))


def _image_name(function: Function) -> str:
    """Return an id that changes whenever the version changes: its name, time of change, and revision."""
    moment = datetime.fromtimestamp(function.modified_at, UTC)
    return f"{function.version}-{moment:%y%m%d%H%M%S}@{function.revision}"
