"""Calls of every operation of the vendor's SDK. Each must return its documented status.

The contents of replies are checked by the tests of each family of operations.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

from engine.http.api.gateway import GatewayApi
from engine.http.operations import OPERATIONS
from tests.acceptance.sdk import SDK_WARNINGS, fg
from tests.acceptance.test_sdk_errors import BODIES, FUNCTION, TIMER, Platform, ask, platform
from tests.support.http_app import encoded, urn_of, zipped

__all__ = ["platform"]  # fixture

WHOLE, LATEST = urn_of("whole", ""), urn_of("whole")
#: Operations on workflows, which the engine does not have.
NEVER = {"ShowWorkFlowMetric"}

Do = Callable[..., Any]

pytestmark = SDK_WARNINGS


def test_every_operation_is_answered_with_its_documented_status(platform: Platform) -> None:
    done: dict[str, int] = {}

    def do(name: str, **changes: object) -> Any:
        reply = ask(platform.client, name, **{"function_urn": LATEST, "resource_id": WHOLE, **changes})
        done[name] = reply.status_code
        return reply

    make(do)
    invoke(do, delayed(platform))
    configure(do)
    keep(do)
    count(do)
    unmake(do)

    assert done == {
        operation.name: operation.status
        for operation in OPERATIONS
        if not operation.own and operation.name not in NEVER | {other.name for other, _ in GatewayApi.operations()}
    }


def delayed(platform: Platform) -> str:
    """Submit a delayed invocation and return its id."""
    request = fg.AsyncInvokeFunctionRequest(function_urn=LATEST, body={})
    invoker = platform.client.async_invoke_function_invoker(request).add_header("X-Functiond-Delay", "3600")
    request_id: str = invoker.invoke().request_id
    return request_id


def make(do: Do) -> None:
    do("CreateFunction", body={**FUNCTION, "func_name": "whole"})
    do("ListFunctions", func_name="whole")
    do("ShowFunctionConfig")
    do("ShowFunctionCode")
    do("UpdateFunctionConfig", body={**FUNCTION, "func_name": "whole", "timeout": 4})
    do("UpdateFunctionCode")
    do("UpdateFunctionMaxInstanceConfig", body={"max_instance_num": 5})
    do("UpdateFunctionCollectState", func_urn=LATEST)
    do("CreateFunctionVersion")
    do("ListFunctionVersions")
    do("CreateVersionAlias", body={"name": "live", "version": "v1"})
    do("ListVersionAliases")
    do("ShowVersionAlias")
    do("UpdateVersionAlias", body={"version": "v1", "additional_version_weights": {"latest": 10}})
    exported = do("ExportFunction", config=True, code=True).raw_content
    assert zipfile.ZipFile(io.BytesIO(exported)).testzip() is None
    do("ImportFunction", body={**body("ImportFunction"), "func_name": "again", "file_code": encoded(exported)})


def invoke(do: Do, waiting: str) -> None:
    do("InvokeFunction", x_cff_request_version="v1")
    do("AsyncInvokeFunction")
    do("ListAsyncInvocations")
    do("ListActiveAsyncInvocations")
    do("CancelAsyncInvocation", body={"request_id": waiting, "type": "force"})


def configure(do: Do) -> None:
    do("UpdateFunctionAsyncInvokeConfig")
    do("ShowFunctionAsyncInvokeConfig")
    do("ListFunctionAsyncInvokeConfig")
    do("DeleteFunctionAsyncInvokeConfig")
    do("EnableAsyncStatusLog")
    do("ShowProjectAsyncStatusLogInfo")
    trigger = do("CreateFunctionTrigger").trigger_id
    do("ListFunctionTriggers")
    do("ShowFunctionTrigger", trigger_id=trigger)
    do("UpdateTrigger", trigger_id=trigger, body={"event_data": [{**TIMER, "schedule": "2m"}]})
    do("DeleteFunctionTrigger", trigger_id=trigger)
    do("BatchDeleteFunctionTriggers")
    do("UpdateFunctionReservedInstancesCount")
    do("ListFunctionReservedInstances")
    do("ListReservedInstanceConfigs")


def keep(do: Do) -> None:
    event = do("CreateEvent").id
    do("ListEvents")
    do("ShowEvent", event_id=event)
    do("UpdateEvent", event_id=event)
    do("DeleteEvent", event_id=event)
    package = encoded(zipped(shared__py="VALUE = 1\n"))
    layer = do("CreateDependencyVersion", body={**body("CreateDependencyVersion"), "depend_file": package}).dep_id
    do("ListDependencies")
    do("ListDependencyVersion", depend_id=layer)
    do("ShowDependencyVersion", depend_id=layer)
    do("DeleteDependencyVersion", depend_id=layer)
    do("CreateTags")
    do("ListFunctionTags")
    do("ShowProjectTagsList")
    do("ShowResInstanceInfo")
    do("DeleteTags")


def count(do: Do) -> None:
    for name in ("ListFunctionStatistics", "ShowFunctionMetrics", "ShowFuncReservedInstanceMetrics"):
        do(name, func_urn=LATEST)
    do("ListStatistics")
    do("ListFunctionAsMetric")
    assert do("ShowTenantMetric", period="60", metric_type="totalCount").count == []
    do("ListQuotas")
    assert do("ListFunctionApplications").applications == []
    assert do("ListAppTemplates").templates == []
    assert do("ListFunctionTemplate").func_templates == []
    do("UpdateTracing", body={"tracing_ak": "access", "tracing_sk": "secret"})
    do("ShowTracing")
    do("EnableLtsLogs")
    do("ShowLtsLogDetails")
    assert do("ShowFuncSnapshotState").state == "Disabled"
    do("UpdateFuncSnapshot")


def unmake(do: Do) -> None:
    do("DeleteVersionAlias")
    do("DeleteFunction", function_urn=urn_of("whole", ":v1"))
    do("DeleteFunction", function_urn=WHOLE)


def body(operation: str) -> dict[str, Any]:
    given = BODIES[operation]
    assert isinstance(given, dict)
    return given
