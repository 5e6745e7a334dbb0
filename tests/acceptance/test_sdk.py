"""Vendor's Python SDK, unmodified: functions, invocations, packages and resources, on an engine process."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.acceptance.sdk import (
    PROJECT,
    SDK_WARNINGS,
    Platform,
    ask,
    call,
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

SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"


def test_a_zip_package_is_created_run_and_given_back(platform: Platform) -> None:
    content = zipped(
        index__py="import helper\n\ndef handler(e, c):\n    return helper.VALUE\n", helper__py="VALUE = 42\n"
    )
    create(platform, "zipped", code_type="zip", code_filename="c.zip", func_code=fg.FuncCode(file=encoded(content)))

    shown = ask(platform, "ShowFunctionCode", "zipped")
    record = ended(platform, "zipped", invoke(platform, "zipped"))

    assert base64.b64decode(shown.func_code.file) == content
    assert (record["status"], record["result"]) == ("SUCCESS", "42")


def test_code_and_configuration_change_what_runs_next(platform: Platform) -> None:
    create(platform, "changing")
    ended(platform, "changing", invoke(platform, "changing"))

    code = fg.FuncCode(file=encoded(b"import os\ndef handler(e, c): return os.environ['A']"))
    config = {"handler": "index.handler", "memory_size": 256, "timeout": 9, "user_data": '{"A": "x"}'}
    updated = ask(platform, "UpdateFunctionCode", "changing", code_type="inline", func_code=code)
    changed = ask(platform, "UpdateFunctionConfig", "changing", func_name="changing", runtime="Python3.10", **config)
    record = ended(platform, "changing", invoke(platform, "changing"))

    assert (updated.code_type, changed.memory_size, changed.timeout) == ("inline", 256, 9)
    assert (record["status"], record["result"]) == ("SUCCESS", "x")


def test_an_asynchronous_invocation_runs_and_is_listed(platform: Platform) -> None:
    create(platform, "listed")
    request_id = invoke(platform, "listed", {"n": 1, "nested": {"a": [1, None, True]}})
    record = ended(platform, "listed", request_id)

    page = {"status": "SUCCESS", "marker": "0", "limit": "100"}
    listed = ask(platform, "ListAsyncInvocations", "listed", request_id=request_id, **page)

    assert json.loads(record["result"]) == {"n": 1, "nested": {"a": [1, None, True]}}
    (item,) = listed.invocations
    assert (item.request_id, item.status, item.error_code, item.error_message) == (request_id, "SUCCESS", 0, "")
    assert (listed.count, bool(item.start_time), bool(item.end_time)) == (1, True, True)


def test_an_active_invocation_can_be_cancelled(platform: Platform) -> None:
    create(platform, "slow", SLOW)
    request_id = invoke(platform, "slow")
    requests = f"{request_id},other"

    before = ask(platform, "ListActiveAsyncInvocations", "slow", requests=requests)
    ask(platform, "CancelAsyncInvocation", "slow", request_id=request_id, type="force")
    record = ended(platform, "slow", request_id)

    assert [item.request_id for item in before.invocations] == [request_id]
    assert (record["status"], record["error_code"]) == ("FAIL", 4208)
    assert ask(platform, "ListActiveAsyncInvocations", "slow", requests=requests).count == 0


def test_a_synchronous_invocation_gives_its_result_in_both_versions_of_requests(platform: Platform) -> None:
    create(platform, "sync")
    wrapped = call(platform, "sync", {"k": "v"})
    plain = ask(platform, "InvokeFunction", "sync", x_cff_request_version="v0", body={"k": "v"})

    assert (wrapped.status_code, plain.status_code) == (200, 200)
    assert wrapped.x_cff_request_id != plain.x_cff_request_id
    assert (json.loads(wrapped.result), wrapped.status) == ({"k": "v"}, 200)
    assert "seen" in wrapped.log
    assert json.loads(plain.raw_content) == {"k": "v"}


def save_event(platform: Platform, function: str, name: str) -> Any:
    return ask(platform, "CreateEvent", function, name=name, content=encoded(b"{}"))


def test_a_function_has_test_events_of_different_names(platform: Platform) -> None:
    create(platform, "eventful")
    save_event(platform, "eventful", "same")

    with refused(403, "FSS.1073"):
        save_event(platform, "eventful", "same")


def add_dependency(platform: Platform, name: str, package: bytes = b"", **fields: object) -> Any:
    file = encoded(package or zipped(shared__py=f"VALUE = '{name}'\n"))
    values = {"name": name, "runtime": "Python3.10", "depend_type": "zip", "depend_file": file, **fields}
    return ask(platform, "CreateDependencyVersion", **values)


def test_a_dependency_has_versions_that_are_listed_and_shown(platform: Platform) -> None:
    first = add_dependency(platform, "layered", description="one")
    package = zipped(shared__py="VALUE = 2\n")
    second = add_dependency(platform, "layered", package)

    listed = ask(platform, "ListDependencies", name="layer", runtime="Python3.10")
    versions = ask(platform, "ListDependencyVersion", depend_id=first.dep_id, maxitems="1")
    shown = ask(platform, "ShowDependencyVersion", depend_id=first.dep_id, version="1")

    assert (first.version, second.version, second.dep_id) == (1, 2, first.dep_id)
    assert (second.etag, second.size) == (hashlib.md5(package).hexdigest(), len(package))
    assert [(dependency.name, dependency.version) for dependency in listed.dependencies] == [("layered", 2)]
    assert ([version.version for version in versions.dependencies], versions.count, versions.next_marker) == ([2], 2, 1)
    assert (shown.id, shown.description, shown.owner) == (first.id, "one", PROJECT)
    assert ask(platform, "ListDependencies", ispublic="true").count == 0


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
    newer = {"runtime": "Python3.12", "handler": "index.handler", "memory_size": 128, "timeout": 30}

    with refused(400, "FSS.1024"):
        create(platform, "unfit", depend_version_list=[fitting.id, older.id])
    with refused(400, "FSS.1024"):  # the attached dependency would no longer fit
        ask(platform, "UpdateFunctionConfig", "fit", func_name="fit", **newer)


def tag(platform: Platform, resource_id: str, **tags: str) -> Any:
    given = {"action": "create", "tags": items(tags)}
    return ask(platform, "CreateTags", resource_type="functions", resource_id=resource_id, **given)


def items(tags: dict[str, str]) -> list[Any]:
    return [fg.KvItem(key=key, value=value) for key, value in tags.items()]


def tags_of(platform: Platform, resource_id: str) -> dict[str, str]:
    listed = ask(platform, "ListFunctionTags", resource_type="functions", resource_id=resource_id)
    return {item.key: item.value for item in listed.tags}


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

    def find(action: str, **fields: object) -> Any:
        return ask(platform, "ShowResInstanceInfo", resource_type="functions", action=action, **fields)

    project = ask(platform, "ShowProjectTagsList", resource_type="functions")
    named = find("filter", matches=items({"resource_name": "red"}), limit="1", offset="1")

    assert {item.key: item.values for item in project.tags}["colour"] == ["blue", "red"]
    assert ([resource.resource_name for resource in named.resources], named.total_count) == (["red2"], 2)
    assert named.resources[0].resource_detail.detail_id == urn_of("red2")
    assert find("count", without_any_tag=True).resources == []


def test_a_function_has_twenty_tags_at_most(platform: Platform) -> None:
    create(platform, "tight")

    with refused(400, "FSS.0400"):
        tag(platform, urn_of("tight"), **{f"k{number}": "v" for number in range(21)})
    many = items({f"k{number}": "v" for number in range(21)})
    with refused(400, "FSS.0400"):
        given = {"resource_id": urn_of("tight"), "action": "create", "sys_tags": many}
        ask(platform, "CreateTags", resource_type="functions", **given)


def reserve(platform: Platform, name: str, count: int, **fields: object) -> Any:
    return ask(platform, "UpdateFunctionReservedInstancesCount", name, count=count, **fields)


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
        shown = ask(platform, "ShowFuncReservedInstanceMetrics", "warm")
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

    page = {"urn": urn_of("held"), "marker": "0", "limit": "10"}
    listed = ask(platform, "ListFunctionReservedInstances", **page)
    (config,) = ask(platform, "ListReservedInstanceConfigs", "held").reserved_instances
    reserve(platform, "held", 0)

    assert [(reserved.func_urn, reserved.count) for reserved in listed.reservedinstances] == [(urn_of("held"), 1)]
    assert (listed.count, listed.page_info.current_count, listed.page_info.next_marker) == (1, 1, 1)
    assert (config.qualifier_type, config.qualifier_name, config.min_count) == ("version", "latest", 1)
    assert (config.idle_mode, config.tactics_config.cron_configs[0].cron) == (True, "0 0 12 * * ?")
    assert ask(platform, "ListFunctionReservedInstances", **page).count == 0


def test_what_a_function_did_is_counted(platform: Platform) -> None:
    create(platform, "counted", "def handler(event, context):\n    if event['k'] == 'bad': raise ValueError\n")
    for word in ("good", "good", "bad"):
        ended(platform, "counted", invoke(platform, "counted", {"k": word}))

    series = ask(platform, "ListFunctionStatistics", "counted", period="5")
    now = time.time()
    dates = (f"{datetime.fromtimestamp(now - 300, UTC):%Y-%m-%dT%H:%M:%SZ}", f"{now + 60},{now - 3600}")
    since = [ask(platform, "ListFunctionStatistics", "counted", period=date) for date in dates]
    report = ask(platform, "ShowFunctionMetrics", "counted", period="1440")
    worst = ask(platform, "ListFunctionAsMetric", limit="100")
    long_ago = ask(platform, "ListFunctionAsMetric", start_time="1000", end_time="2000")
    instances = ask(platform, "ShowFuncReservedInstanceMetrics", "counted")

    assert [sum(point.value for point in each.count if point.value > 0) for each in (series, *since)] == [3, 3, 3]
    assert sum(point.value for point in series.function_error_count if point.value > 0) == 1
    assert (len(series.duration), series.count[0].value, series.system_error_count[0].value) == (5, -1, -1)
    assert sum(point.value for point in report.fail_count if point.value > 0) == 1
    assert {entry.key: entry.value for entry in worst.values}[urn_of("counted", "")] == 1
    assert (long_ago.values, long_ago.count) == ([], 0)
    assert len(instances.instance_num) == len(instances.reserved_instance_num) == 60


def test_a_project_has_statistics_of_now_and_of_its_months(platform: Platform) -> None:
    create(platform, "monthly")
    ended(platform, "monthly", invoke(platform, "monthly"))

    now = ask(platform, "ListStatistics", filter="monitor_data", period="60")
    months = ask(platform, "ListStatistics", filter="monthly_report", option="0")
    before = ask(platform, "ListStatistics", filter="monthly_report", option="1")

    assert sum(point.value for point in now.statistics.count if point.value > 0) >= 1
    assert months.count[0].value >= 1
    assert months.gbs[0].value > 0
    assert before.count == []


def test_tracing_keys_are_kept_and_the_secret_one_is_masked(platform: Platform) -> None:
    create(platform, "traced")

    ask(platform, "UpdateTracing", "traced", tracing_ak="access", tracing_sk="secret")
    shown = ask(platform, "ShowTracing", "traced")
    with refused(400, "FSS.0400"):
        ask(platform, "UpdateTracing", "traced", tracing_ak="access", tracing_sk="")
    ask(platform, "UpdateTracing", "traced", tracing_ak="", tracing_sk="")
    ended = ask(platform, "ShowTracing", "traced")

    assert (shown.tracing_ak, shown.tracing_sk) == ("access", "******")
    assert (ended.tracing_ak, ended.tracing_sk) == ("", "")


def test_logs_can_be_enabled_and_their_place_is_shown(platform: Platform) -> None:
    create(platform, "logging", log_config=fg.FuncLogConfig(group_id="g", stream_id="s", group_name="logs"))
    create(platform, "unnamed")

    enabled = ask(platform, "EnableLtsLogs")
    named, unnamed = [ask(platform, "ShowLtsLogDetails", name) for name in ("logging", "unnamed")]

    assert enabled.status_code == 200
    assert (named.group_id, named.group_name, named.stream_id, named.stream_name) == ("g", "logs", "s", None)
    assert (bool(unnamed.group_id), unnamed.group_name, unnamed.stream_name) == (True, None, None)


def export(platform: Platform, name: str, **choice: bool) -> bytes:
    content: bytes = ask(platform, "ExportFunction", name, **choice).raw_content
    return content


def take_in(platform: Platform, name: str, file: bytes, **fields: object) -> Any:
    values = {"func_name": name, "file_name": "f.zip", "file_type": "zip", "file_code": encoded(file), **fields}
    return ask(platform, "ImportFunction", **values)


def test_a_function_goes_out_and_comes_in_again(platform: Platform) -> None:
    code = zipped(index__py="import os\n\ndef handler(event, context):\n    return os.environ['WORD']\n")
    create(
        platform,
        "travelling",
        code_type="zip",
        code_filename="t.zip",
        func_code=fg.FuncCode(file=encoded(code)),
        user_data='{"WORD": "kept"}',
        description="é",
        memory_size=256,
        initializer_timeout=7,
        xrole="agency",
    )

    arrived = take_in(platform, "arrived", export(platform, "travelling", config=True, code=True), package="other")
    shown = ask(platform, "ShowFunctionConfig", function_urn="other:arrived")
    original = ask(platform, "ShowFunctionConfig", "travelling")

    assert (arrived.func_name, arrived.package, arrived.digest) == ("arrived", "other", original.digest)
    for field in ("user_data", "description", "memory_size", "initializer_timeout", "xrole", "code_filename"):
        assert getattr(shown, field) == getattr(original, field)


def test_inline_code_runs_after_its_journey(platform: Platform) -> None:
    create(platform, "inlined", "def handler(event, context):\n    return 'arrived'\n")

    take_in(platform, "inlined2", export(platform, "inlined"))

    assert ended(platform, "inlined2", invoke(platform, "inlined2"))["result"] == "arrived"


def test_source_that_is_not_python_does_not_go_out_as_such(platform: Platform) -> None:
    create(platform, "shell", "#!/bin/sh\n", runtime="Custom", handler="bootstrap")

    with zipfile.ZipFile(io.BytesIO(export(platform, "shell"))) as package:
        files = {name: package.read(name) for name in package.namelist()}
    arrived = take_in(platform, "shell2", export(platform, "shell"))

    assert (list(files), files["shell"]) == (["shell.yaml", "shell"], b"#!/bin/sh\n")
    assert (arrived.runtime, arrived.code_type, arrived.code_filename) == ("Custom", "inline", "bootstrap")


def test_an_export_holds_what_was_asked_for(platform: Platform) -> None:
    create(platform, "chosen")

    def names(**choice: bool) -> list[str]:
        return zipfile.ZipFile(io.BytesIO(export(platform, "chosen", **choice))).namelist()

    assert names(config=True) == ["chosen.yaml"]
    assert names(code=True, config=False) == ["chosen.py"]
    assert names() == ["chosen.yaml", "chosen.py"]
    with refused(404, "FSS.1051"):
        export(platform, "unheard_of")


def test_an_import_replaces_no_function(platform: Platform) -> None:
    create(platform, "taken")

    with refused(409, "FSS.1061"):
        take_in(platform, "taken", export(platform, "taken"))
