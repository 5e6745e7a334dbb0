"""Vendor's SDK with resources of functions and projects, on an engine process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.acceptance.sdk import (
    PROJECT,
    SDK_WARNINGS,
    Platform,
    create,
    encoded,
    ended,
    fg,
    invoke,
    refused,
    urn_of,
)
from tests.support.http_app import zipped

pytestmark = SDK_WARNINGS


def content(event: object) -> str:
    return encoded(json.dumps(event).encode())


def save_event(platform: Platform, function: str, name: str, text: str = "") -> Any:
    body = fg.CreateEventRequestBody(name=name, content=text or content({"k": 1}))
    return platform.client.create_event(fg.CreateEventRequest(function_urn=urn_of(function), body=body))


def test_a_test_event_is_saved_shown_changed_and_deleted(platform: Platform) -> None:
    create(platform, "evented")
    urn, client = urn_of("evented"), platform.client

    event = save_event(platform, "evented", "first")
    body = fg.UpdateEventRequestBody(content=content({"k": 2}))
    changed = client.update_event(fg.UpdateEventRequest(function_urn=urn, event_id=event.id, body=body))
    shown = client.show_event(fg.ShowEventRequest(function_urn=urn, event_id=event.id))
    listed = client.list_events(fg.ListEventsRequest(function_urn=urn))
    deleted = client.delete_event(fg.DeleteEventRequest(function_urn=urn, event_id=event.id))

    assert (event.name, changed.id, shown.name, shown.content) == ("first", event.id, "first", content({"k": 2}))
    assert ([item.name for item in listed.events], listed.count) == (["first"], 1)
    assert shown.last_modified > 1e9
    assert deleted.status_code == 204
    assert client.list_events(fg.ListEventsRequest(function_urn=urn)).count == 0


def test_a_function_has_ten_test_events_of_different_names(platform: Platform) -> None:
    create(platform, "eventful")
    save_event(platform, "eventful", "same")

    with refused(403, "FSS.1073"):
        save_event(platform, "eventful", "same")
    for number in range(9):
        save_event(platform, "eventful", f"e{number}")
    with refused(403, "FSS.1068"):
        save_event(platform, "eventful", "e9")


def add_dependency(platform: Platform, name: str, package: bytes = b"", **fields: object) -> Any:
    file = encoded(package or zipped(shared__py=f"VALUE = '{name}'\n"))
    values = {"name": name, "runtime": "Python3.10", "depend_type": "zip", "depend_file": file, **fields}
    body = fg.CreateDependencyRequestBody(**values)
    return platform.client.create_dependency_version(fg.CreateDependencyVersionRequest(body=body))


def test_a_dependency_has_versions_that_are_listed_and_shown(platform: Platform) -> None:
    client = platform.client
    first = add_dependency(platform, "layered", description="one")
    package = zipped(shared__py="VALUE = 2\n")
    second = add_dependency(platform, "layered", package)

    listed = client.list_dependencies(fg.ListDependenciesRequest(name="layer", runtime="Python3.10"))
    versions = client.list_dependency_version(fg.ListDependencyVersionRequest(depend_id=first.dep_id, maxitems="1"))
    shown = client.show_dependency_version(fg.ShowDependencyVersionRequest(depend_id=first.dep_id, version="1"))

    assert (first.version, second.version, second.dep_id) == (1, 2, first.dep_id)
    assert (second.etag, second.size) == (hashlib.md5(package).hexdigest(), len(package))
    assert [(one.name, one.version) for one in listed.dependencies] == [("layered", 2)]
    assert ([one.version for one in versions.dependencies], versions.count, versions.next_marker) == ([2], 2, 1)
    assert (shown.id, shown.description, shown.owner) == (first.id, "one", PROJECT)
    assert client.list_dependencies(fg.ListDependenciesRequest(ispublic="true")).count == 0


def test_a_dependency_is_on_the_path_of_the_child_behind_its_code(platform: Platform) -> None:
    one = add_dependency(platform, "one", zipped(shared__py="VALUE = 1\n", one__py="", index__py="raise SystemExit"))
    two = add_dependency(platform, "two", zipped(shared__py="VALUE = 2\n", two__py=""))
    source = "import one, two, shared\n\ndef handler(event, context):\n    return shared.VALUE\n"

    created = create(platform, "depending", source, depend_version_list=[one.id, two.id])
    record = ended(platform, "depending", invoke(platform, "depending"))

    assert (record["status"], record["result"]) == ("SUCCESS", "1")
    assert created.depend_version_list == [one.id, two.id]
    assert [(used.id, used.name) for used in created.dependencies] == [(one.id, "one"), (two.id, "two")]


def test_a_dependency_serves_functions_of_its_own_runtime_only(platform: Platform) -> None:
    older = add_dependency(platform, "older", runtime="Python3.9")
    fitting = add_dependency(platform, "fitting")
    create(platform, "fit", depend_version_list=[fitting.id])
    newer = {"func_name": "fit", "runtime": "Python3.12", "handler": "index.handler", "memory_size": 128, "timeout": 30}

    with refused(400, "FSS.1024"):
        create(platform, "unfit", depend_version_list=[fitting.id, older.id])
    with refused(400, "FSS.1024"):  # the attached dependency would no longer fit
        body = fg.UpdateFunctionConfigRequestBody(**newer)
        platform.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn=urn_of("fit"), body=body))


def tag(platform: Platform, resource_id: str, **tags: str) -> Any:
    body = fg.UpdateFunctionTagsRequestBody(action="create", tags=[fg.KvItem(key=k, value=v) for k, v in tags.items()])
    request = fg.CreateTagsRequest(resource_type="functions", resource_id=resource_id, body=body)
    return platform.client.create_tags(request)


def tags_of(platform: Platform, resource_id: str) -> dict[str, str]:
    request = fg.ListFunctionTagsRequest(resource_type="functions", resource_id=resource_id)
    return {item.key: item.value for item in platform.client.list_function_tags(request).tags}


def test_tags_are_put_on_a_function_listed_and_taken_off(platform: Platform) -> None:
    function = create(platform, "tagged")

    made = tag(platform, urn_of("tagged", ""), owner="me", stage="test")
    tag(platform, function.func_urn, stage="live")
    before = tags_of(platform, urn_of("tagged"))
    body = fg.UpdateFunctionTagsRequestBody(action="delete", tags=[fg.KvItem(key="owner", value="me")])
    request = fg.DeleteTagsRequest(resource_type="functions", resource_id=urn_of("tagged"), body=body)
    deleted = platform.client.delete_tags(request)

    assert (made.status_code, deleted.status_code) == (204, 204)
    assert before == {"owner": "me", "stage": "live"}
    assert tags_of(platform, urn_of("tagged")) == {"stage": "live"}


def test_a_function_comes_with_its_tags(platform: Platform) -> None:
    create(platform, "born_tagged", tags=json.dumps({"owner": "me", "stage": "test"}))
    before = tags_of(platform, urn_of("born_tagged"))

    tag(platform, urn_of("born_tagged"), stage="live")

    assert before == {"owner": "me", "stage": "test"}
    assert tags_of(platform, urn_of("born_tagged")) == {"owner": "me", "stage": "live"}


def test_functions_are_found_by_their_tags(platform: Platform) -> None:
    for name, colour in (("red1", "red"), ("red2", "red"), ("blue1", "blue")):
        create(platform, name)
        tag(platform, urn_of(name), colour=colour)

    def ask(action: str, **fields: object) -> Any:
        body = fg.ListEnterpriseResourceRequestBody(**fields)
        request = fg.ShowResInstanceInfoRequest(resource_type="functions", action=action, body=body)
        return platform.client.show_res_instance_info(request)

    project = platform.client.show_project_tags_list(fg.ShowProjectTagsListRequest(resource_type="functions"))
    named = ask("filter", matches=[fg.KvItem(key="resource_name", value="red")], limit="1", offset="1")

    assert {item.key: item.values for item in project.tags}["colour"] == ["blue", "red"]
    assert ([one.resource_name for one in named.resources], named.total_count) == (["red2"], 2)
    assert named.resources[0].resource_detail.detail_id == urn_of("red2")
    assert ask("count", without_any_tag=True).resources == []


def test_a_function_has_twenty_tags_at_most(platform: Platform) -> None:
    create(platform, "tight")

    with refused(400, "FSS.0400"):
        tag(platform, urn_of("tight"), **{f"k{number}": "v" for number in range(21)})
    many = [fg.KvItem(key=f"k{number}", value="v") for number in range(21)]
    with refused(400, "FSS.0400"):
        body = fg.UpdateFunctionTagsRequestBody(action="create", sys_tags=many)
        request = fg.CreateTagsRequest(resource_type="functions", resource_id=urn_of("tight"), body=body)
        platform.client.create_tags(request)


def reserve(platform: Platform, name: str, count: int, **fields: object) -> Any:
    body = fg.UpdateFunctionReservedInstancesCountRequestBody(count=count, **fields)
    request = fg.UpdateFunctionReservedInstancesCountRequest(function_urn=urn_of(name), body=body)
    return platform.client.update_function_reserved_instances_count(request)


def test_reserved_instances_are_alive_before_there_is_work_and_replaced_when_they_die(
    platform: Platform, tmp_path: Path
) -> None:
    fifo = tmp_path / "born"
    os.mkfifo(fifo)
    source = (
        f"import os\nopen({str(fifo)!r}, 'w').write(f'{{os.getpid()}}\\n')\ndef handler(e, c): return os.getpid()\n"
    )
    create(platform, "warm", source)

    with os.fdopen(os.open(fifo, os.O_RDWR), buffering=1) as born:
        reply = reserve(platform, "warm", 2)
        pids = {born.readline().strip(), born.readline().strip()}
        shown = platform.client.show_func_reserved_instance_metrics(
            fg.ShowFuncReservedInstanceMetricsRequest(func_urn=urn_of("warm"))
        )
        served = ended(platform, "warm", invoke(platform, "warm"))["result"]
        os.kill(int(served), signal.SIGKILL)
        replaced = born.readline().strip()
        reserve(platform, "warm", 0)

    assert reply.count == 2
    assert (shown.reserved_instance_num[-1].value, shown.instance_num[-1].value) == (2, 0)
    assert served in pids
    assert replaced not in pids


def test_reserved_instances_are_listed_with_their_tactics(platform: Platform) -> None:
    create(platform, "held")
    cron = fg.CronConfig(name="noon", cron="0 0 12 * * ?", count=3, start_time=1, expired_time=2)
    tactics = fg.TacticsConfig(cron_configs=[cron])
    reserve(platform, "held", 1, idle_mode=True, tactics_config=tactics)

    counts = fg.ListFunctionReservedInstancesRequest(urn=urn_of("held"), marker="0", limit="10")
    listed = platform.client.list_function_reserved_instances(counts)
    configs = fg.ListReservedInstanceConfigsRequest(function_urn=urn_of("held"))
    (config,) = platform.client.list_reserved_instance_configs(configs).reserved_instances
    reserve(platform, "held", 0)

    assert [(one.func_urn, one.count) for one in listed.reservedinstances] == [(urn_of("held"), 1)]
    assert (listed.count, listed.page_info.current_count, listed.page_info.next_marker) == (1, 1, 1)
    assert (config.qualifier_type, config.qualifier_name, config.min_count) == ("version", "latest", 1)
    assert (config.idle_mode, config.tactics_config.cron_configs[0].cron) == (True, "0 0 12 * * ?")
    assert platform.client.list_function_reserved_instances(counts).count == 0


def test_what_a_function_did_is_counted(platform: Platform) -> None:
    create(platform, "counted", "def handler(event, context):\n    if event['k'] == 'bad': raise ValueError\n")
    for word in ("good", "good", "bad"):
        ended(platform, "counted", invoke(platform, "counted", {"k": word}))
    client, urn = platform.client, urn_of("counted")

    series = client.list_function_statistics(fg.ListFunctionStatisticsRequest(func_urn=urn, period="5"))
    report = client.show_function_metrics(fg.ShowFunctionMetricsRequest(func_urn=urn, period="1440"))
    worst = client.list_function_as_metric(fg.ListFunctionAsMetricRequest(limit="100"))
    long_ago = client.list_function_as_metric(fg.ListFunctionAsMetricRequest(start_time="1000", end_time="2000"))
    instances = client.show_func_reserved_instance_metrics(fg.ShowFuncReservedInstanceMetricsRequest(func_urn=urn))

    assert sum(point.value for point in series.count if point.value > 0) == 3
    assert sum(point.value for point in series.function_error_count if point.value > 0) == 1
    assert (len(series.duration), series.count[0].value, series.system_error_count[0].value) == (5, -1, -1)
    assert sum(point.value for point in report.fail_count if point.value > 0) == 1
    assert {one.key: one.value for one in worst.values}[urn_of("counted", "")] == 1
    assert (long_ago.values, long_ago.count) == ([], 0)
    assert len(instances.instance_num) == len(instances.reserved_instance_num) == 60


def test_a_project_has_statistics_of_now_and_of_its_months(platform: Platform) -> None:
    create(platform, "monthly")
    ended(platform, "monthly", invoke(platform, "monthly"))
    client = platform.client

    now = client.list_statistics(fg.ListStatisticsRequest(filter="monitor_data", period="60"))
    months = client.list_statistics(fg.ListStatisticsRequest(filter="monthly_report", option="0"))
    before = client.list_statistics(fg.ListStatisticsRequest(filter="monthly_report", option="1"))

    assert sum(point.value for point in now.statistics.count if point.value > 0) >= 1
    assert months.count[0].value >= 1
    assert months.gbs[0].value > 0
    assert before.count == []


def test_a_project_without_workflows_has_no_data_of_them(platform: Platform) -> None:
    client = platform.client
    request = fg.ShowTenantMetricRequest(period="1", start_time="1", end_time="2", metric_type="totalCount")

    assert client.show_tenant_metric(request).count == []


def test_quotas_show_what_is_used(platform: Platform) -> None:
    create(platform, "counting")

    quotas = {one.type: one for one in platform.client.list_quotas(fg.ListQuotasRequest()).quotas.resources}
    create(platform, "counting2")
    later = {one.type: one for one in platform.client.list_quotas(fg.ListQuotasRequest()).quotas.resources}

    assert later["fgs_func_num"].used == quotas["fgs_func_num"].used + 1
    assert (quotas["fgs_func_num"].quota, quotas["fgs_func_code_size"].unit) == (400, "MB")
    assert quotas["fgs_func_code_size"].used >= 1


def test_tracing_keys_are_kept_and_the_secret_one_is_masked(platform: Platform) -> None:
    create(platform, "traced")
    client, urn = platform.client, urn_of("traced")

    def put(access: str, secret: str) -> Any:
        body = fg.UpdateTracingRequestBody(tracing_ak=access, tracing_sk=secret)
        return client.update_tracing(fg.UpdateTracingRequest(function_urn=urn, body=body))

    put("access", "secret")
    shown = client.show_tracing(fg.ShowTracingRequest(function_urn=urn))
    with refused(400, "FSS.0400"):
        put("access", "")
    put("", "")
    ended = client.show_tracing(fg.ShowTracingRequest(function_urn=urn))

    assert (shown.tracing_ak, shown.tracing_sk) == ("access", "******")
    assert (ended.tracing_ak, ended.tracing_sk) == ("", "")


def test_logs_can_be_enabled_and_their_place_is_shown(platform: Platform) -> None:
    create(platform, "logging", log_config=fg.FuncLogConfig(group_id="g", stream_id="s"))

    enabled = platform.client.enable_lts_logs(fg.EnableLtsLogsRequest())
    shown = platform.client.show_lts_log_details(fg.ShowLtsLogDetailsRequest(function_urn=urn_of("logging")))

    assert enabled.status_code == 200
    assert (shown.group_id, shown.stream_id) == ("g", "s")
    assert shown.group_name
    assert shown.stream_name


def test_there_are_no_snapshots(platform: Platform) -> None:
    create(platform, "snapped")
    client, urn = platform.client, urn_of("snapped")

    state = client.show_func_snapshot_state(fg.ShowFuncSnapshotStateRequest(function_urn=urn, action="state"))
    off = client.update_func_snapshot(fg.UpdateFuncSnapshotRequest(function_urn=urn, action="disable"))

    assert (state.state, off.status_code) == ("Disabled", 204)
