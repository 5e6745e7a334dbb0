"""Errors of every operation of the vendor's SDK (FunctionGraph API: error codes).

Errors common to all operations are tested on each of them; errors of single operations are listed in a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from msgspec import Struct

from engine.http.operations import OPERATIONS
from tests.acceptance.engine_process import engine_on
from tests.acceptance.sdk import SDK_WARNINGS, ServiceResponseException, fg, method_of, sdk_client, sdk_home
from tests.support.credentials import credentials_file, key
from tests.support.http_app import HELLO, PROJECT, SOURCE, encoded, urn_of, zipped

SECRET = "sixteen-characters-or-more"
OTHER = "0" * 32
#: Required path and query parameters besides the function.
PARTS = {
    "alias_name": "live",
    "depend_id": "none",
    "event_id": "none",
    "filter": "monitor_data",
    "period": "60",
    "resource_id": urn_of("absent"),
    "resource_type": "functions",
    "state": "true",
    "trigger_id": "none",
    "trigger_type_code": "TIMER",
    "version": "1",
    "workflow_urn": "none",
}
ACTIONS = {"ShowFuncSnapshotState": "state", "UpdateFuncSnapshot": "disable", "ShowResInstanceInfo": "filter"}
#: Valid bodies by operation.
FUNCTION = HELLO | {"func_name": "absent"}
TIMER = {"name": "tick", "schedule_type": "Rate", "schedule": "1m"}
BODIES: dict[str, object] = {
    "AsyncInvokeFunction": {},
    "CancelAsyncInvocation": {"request_id": "none", "type": "force"},
    "CreateDependencyVersion": {"name": "dep", "runtime": "Python3.10", "depend_type": "zip", "depend_file": "UEsF"},
    "CreateEvent": {"name": "first", "content": encoded("{}")},
    "CreateFunction": FUNCTION,
    "CreateFunctionTrigger": {"trigger_type_code": "TIMER", "event_data": TIMER},
    "CreateFunctionVersion": {"version": "v1"},
    "CreateTags": {"tags": [{"key": "k", "value": "v"}]},
    "CreateVersionAlias": {"name": "live", "version": "latest"},
    "DeleteTags": {"tags": [{"key": "k", "value": "v"}]},
    "ImportFunction": {"func_name": "absent", "file_name": "f.zip", "file_type": "zip", "file_code": "UEsF"},
    "InvokeFunction": {},
    "ShowResInstanceInfo": {"action": "filter"},
    "UpdateEvent": {"content": encoded("{no json")},
    "UpdateFunctionAsyncInvokeConfig": {"max_async_retry_attempts": 1},
    "UpdateFunctionCode": {"code_type": "inline", "func_code": {"file": encoded(SOURCE)}},
    "UpdateFunctionConfig": FUNCTION,
    "UpdateFunctionMaxInstanceConfig": {"max_instance_num": 1},
    "UpdateFunctionReservedInstancesCount": {"count": 0},
    "UpdateTracing": {"tracing_ak": "", "tracing_sk": ""},
    "UpdateTrigger": {"trigger_status": "ACTIVE"},
    "UpdateVersionAlias": {"version": "latest"},
}
OF_SDK = [operation for operation in OPERATIONS if not operation.own and "/fgs/" in operation.path]
NAMES = [operation.name for operation in OF_SDK]
OF_FUNCTIONS = [operation.name for operation in OF_SDK if "{function_urn}" in operation.path]
#: Invocations accept any body; a change of an alias first looks up the alias.
ANY_BODY = ("InvokeFunction", "AsyncInvokeFunction", "UpdateVersionAlias")
WITH_BODY = [operation.name for operation in OF_SDK if operation.body is not None and operation.name not in ANY_BODY]

pytestmark = SDK_WARNINGS


class Platform(Struct):
    client: Any
    stranger: Any  #: client with a wrong secret
    neighbour: Any  #: client with another project's key


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("errors")
    settings = credentials_file(folder, key("AK1", SECRET, PROJECT), key("AK2", SECRET, OTHER))
    settings |= {"FUNCTIOND_AUTH__FAILURES": "10000"}
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        keys = (("AK1", SECRET), ("AK1", "wrong" + SECRET), ("AK2", SECRET))
        client, stranger, neighbour = (sdk_client(engine.port, stack, *key, project=PROJECT) for key in keys)
        here = Platform(client=client, stranger=stranger, neighbour=neighbour)
        ask(here.client, "CreateFunction", body=HELLO)
        yield here


def ask(client: Any, name: str, **changes: object) -> Any:
    """Call an operation of the SDK by name with all its required parameters."""
    kind = getattr(fg, f"{name}Request")
    given = {**PARTS, "action": ACTIONS.get(name), "body": BODIES.get(name), **changes}
    given.setdefault("function_urn", urn_of("absent"))
    given.setdefault("func_urn", given["function_urn"])
    request = kind(**{field: given[field] for field in kind.openapi_types if given.get(field) is not None})
    return getattr(client, method_of(name))(request)


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ServiceResponseException) as caught:
        call()
    assert caught.value.request_id
    assert caught.value.error_msg
    return caught.value.status_code, caught.value.error_code


@pytest.mark.parametrize("name", NAMES)
def test_without_the_right_secret_nothing_is_done(platform: Platform, name: str) -> None:
    assert refusal(lambda: ask(platform.stranger, name)) == (401, "FSS.0401")


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_another_project_is_good_for_nothing_here(platform: Platform, name: str) -> None:
    assert refusal(lambda: ask(platform.neighbour, name)) == (403, "FSS.0403")


@pytest.mark.parametrize("name", OF_FUNCTIONS)
def test_a_function_of_another_project_is_out_of_reach(platform: Platform, name: str) -> None:
    foreign = urn_of().replace(PROJECT, OTHER)

    assert refusal(lambda: ask(platform.client, name, function_urn=foreign)) == (403, "FSS.0403")


@pytest.mark.parametrize("name", OF_FUNCTIONS)
def test_what_is_no_function_at_all_is_told(platform: Platform, name: str) -> None:
    assert refusal(lambda: ask(platform.client, name, function_urn="urn:fss:x:y")) == (400, "FSS.1309")


@pytest.mark.parametrize("name", OF_FUNCTIONS)
@pytest.mark.parametrize(
    ("urn", "code"),
    [(urn_of("absent"), "FSS.1051"), (urn_of(version=":v9"), "FSS.1052"), (urn_of(version=":!none"), "FSS.1053")],
)
def test_a_function_version_or_alias_that_is_missing_is_told(
    platform: Platform, name: str, urn: str, code: str
) -> None:
    assert refusal(lambda: ask(platform.client, name, function_urn=urn)) == (404, code)


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_body_of_another_kind_is_told(platform: Platform, name: str) -> None:
    status, code = refusal(lambda: ask(platform.client, name, function_urn=urn_of(), resource_id=urn_of(), body=[[]]))

    assert (status, code) in {(400, "FSS.0400"), (400, "FSS.1074"), (400, "FSS.1024")}


def body(operation: str, /, **changes: object) -> dict[str, object]:
    """Return a valid body with the given changes."""
    given = BODIES[operation]
    assert isinstance(given, dict)
    return {"body": {**given, **changes}}


def imported(**files: str) -> dict[str, object]:
    """Return the body of an import of a package with these files."""
    return body("ImportFunction", file_code=encoded(zipped(**files)))


CREATE, CONFIGURE = "CreateFunction", "UpdateFunctionConfig"
#: operation, changes of a valid request, expected status and error code
OWN: list[tuple[str, dict[str, Any], int, str]] = [
    (CREATE, body(CREATE, depend_version_list=["none"]), 404, "FSS.1056"),
    (CREATE, body(CREATE, func_name="hello"), 409, "FSS.1061"),
    (CREATE, body(CREATE, strategy_config={"concurrency": 1, "concurrent_num": 0}), 400, "FSS.1026"),
    (CREATE, body(CREATE, type="v3"), 400, "FSS.0400"),
    (CREATE, body(CREATE, tags="a=b"), 400, "FSS.0400"),
    (CONFIGURE, body(CONFIGURE, func_name="another"), 400, "FSS.1002"),
    (CONFIGURE, {**body(CONFIGURE), "function_urn": urn_of(version=":")}, 400, "FSS.1309"),
    ("UpdateFunctionCode", body("UpdateFunctionCode", code_type="zip"), 400, "FSS.1011"),
    ("UpdateFunctionCollectState", {"state": "maybe"}, 400, "FSS.0400"),
    ("CreateFunctionVersion", body("CreateFunctionVersion", version="latest"), 400, "FSS.1015"),
    ("CreateFunctionVersion", body("CreateFunctionVersion", digest="0" * 32), 400, "FSS.0400"),
    ("CreateVersionAlias", body("CreateVersionAlias", name="1st"), 400, "FSS.1014"),
    ("CreateVersionAlias", body("CreateVersionAlias", version="v9"), 404, "FSS.1052"),
    ("ShowVersionAlias", {}, 404, "FSS.1053"),
    ("UpdateVersionAlias", {}, 404, "FSS.1053"),
    ("DeleteVersionAlias", {}, 404, "FSS.1053"),
    ("InvokeFunction", {"x_cff_instance_memory": "256"}, 400, "FSS.0400"),
    ("AsyncInvokeFunction", {"x_cff_instance_memory": "1"}, 400, "FSS.0400"),
    ("ListActiveAsyncInvocations", {"requests": ",".join("abcdefghijk")}, 400, "FSS.1001"),
    ("DeleteFunctionAsyncInvokeConfig", {}, 404, "FSS.0404"),
    ("ListFunctionAsyncInvokeConfig", {"limit": "-1"}, 400, "FSS.1001"),
    ("UpdateFunctionReservedInstancesCount", {"body": {"count": 91}}, 400, "FSS.1076"),
    (
        "UpdateFunctionReservedInstancesCount",
        {"body": {"count": 1, "tactics_config": {"cron_configs": [{"cron": "noon"}]}}},
        400,
        "FSS.0400",
    ),
    ("ListFunctionReservedInstances", {"urn": urn_of("absent")}, 404, "FSS.1051"),
    ("ListReservedInstanceConfigs", {"limit": "x"}, 400, "FSS.1001"),
    ("CreateEvent", body("CreateEvent", content="not base64!"), 400, "FSS.1074"),
    ("CreateEvent", body("CreateEvent", content=encoded(json.dumps("x" * 4096))), 403, "FSS.1069"),
    ("ShowEvent", {}, 404, "FSS.1070"),
    ("UpdateEvent", {}, 404, "FSS.1070"),
    ("DeleteEvent", {}, 404, "FSS.1070"),
    ("CreateDependencyVersion", body("CreateDependencyVersion", name="1st"), 400, "FSS.1024"),
    ("CreateDependencyVersion", body("CreateDependencyVersion", depend_file=encoded("no zip")), 400, "FSS.1024"),
    ("CreateDependencyVersion", body("CreateDependencyVersion", depend_type="tar"), 400, "FSS.1032"),
    (
        "CreateDependencyVersion",  # no store is configured
        body("CreateDependencyVersion", depend_type="obs", depend_link="obs://bucket/x.zip"),
        400,
        "FSS.1032",
    ),
    ("ShowDependencyVersion", {}, 404, "FSS.1056"),
    ("DeleteDependencyVersion", {}, 404, "FSS.1056"),
    ("ListDependencyVersion", {}, 404, "FSS.1056"),
    ("ListDependencies", {"maxitems": "x"}, 400, "FSS.1001"),
    ("ListFunctionApplications", {"limit": "x"}, 400, "FSS.1001"),
    ("ListAppTemplates", {"maxitems": "x"}, 400, "FSS.1001"),
    ("ListFunctionTemplate", {"marker": "x"}, 400, "FSS.1001"),
    ("ListFunctions", {"marker": "x"}, 400, "FSS.1001"),
    ("ListFunctionVersions", {"maxitems": "x"}, 400, "FSS.1001"),
    ("ImportFunction", body("ImportFunction", func_name="1st"), 400, "FSS.1002"),
    ("ImportFunction", body("ImportFunction", file_code=encoded("no zip")), 400, "FSS.1011"),
    ("ImportFunction", imported(**{"../out__yaml": "{}"}), 400, "FSS.1011"),
    ("ImportFunction", imported(nothing__txt="x"), 400, "FSS.1022"),
    ("ImportFunction", imported(a__yaml="{}", b__yaml="{}", c__py=""), 400, "FSS.1022"),
    ("ImportFunction", imported(a__yaml="name: value", c__py=""), 400, "FSS.1025"),
    ("ImportFunction", imported(a__yaml='{"func_name": "new"}', c__py=""), 400, "FSS.1025"),
    ("ImportFunction", imported(a__yaml="{}", c__py=""), 404, "FSS.1057"),
    ("CreateTags", {"body": {"tags": [{"key": "x" * 129}]}, "resource_id": urn_of()}, 400, "FSS.0400"),
    ("DeleteTags", {"resource_type": "workflows"}, 404, "FSS.0404"),
    ("ListFunctionTags", {"resource_id": urn_of("absent")}, 404, "FSS.1051"),
    ("ShowProjectTagsList", {"resource_type": "workflows"}, 404, "FSS.0404"),
    ("ShowResInstanceInfo", {"action": "find"}, 400, "FSS.0400"),
    ("ShowResInstanceInfo", body("ShowResInstanceInfo", limit="x"), 400, "FSS.0400"),
    ("ListFunctionStatistics", {"period": "0"}, 400, "FSS.1001"),
    ("ListFunctionStatistics", {"period": "9999-01-01T00:00:00Z"}, 400, "FSS.1001"),
    ("ShowFunctionMetrics", {"period": "x"}, 400, "FSS.1001"),
    ("ExportFunction", {"function_urn": urn_of("hello"), "config": "maybe"}, 400, "FSS.1001"),
    ("ListStatistics", {"filter": "beauty"}, 400, "FSS.1001"),
    ("ListStatistics", {"option": "4", "filter": "monthly_report"}, 400, "FSS.1001"),
    ("ListFunctionAsMetric", {"type": "beauty"}, 400, "FSS.1001"),
    ("ShowTenantMetric", {"metric_type": "beauty"}, 400, "FGS.3002"),
    ("ShowWorkFlowMetric", {}, 400, "FGS.3002"),
    ("ShowFuncSnapshotState", {"action": "enableSnapshots"}, 400, "FSS.0400"),
    ("UpdateFuncSnapshot", {"action": "enable"}, 426, "FSS.0426"),
]


@pytest.mark.parametrize(("name", "changes", "status", "code"), OWN)
def test_what_an_operation_refuses_has_its_documented_code(
    platform: Platform, name: str, changes: dict[str, Any], status: int, code: str
) -> None:
    assert refusal(lambda: ask(platform.client, name, **{"function_urn": urn_of(version=""), **changes})) == (
        status,
        code,
    )


def test_each_operation_that_can_refuse_something_does_so_above() -> None:
    silent = set(NAMES) - {name for name, *_ in OWN} - set(OF_FUNCTIONS) - set(WITH_BODY)

    assert silent == {"ListQuotas", "EnableLtsLogs", "EnableAsyncStatusLog", "ShowProjectAsyncStatusLogInfo"}
