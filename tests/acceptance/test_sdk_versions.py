"""Vendor's SDK with versions and aliases, on an engine process."""

from __future__ import annotations

import json
import os
import select
from typing import Any

from tests.acceptance.engine_process import Reply, until
from tests.acceptance.sdk import PROJECT, SDK_WARNINGS, Platform, ask, create, encoded, ended, fg, urn_of

pytestmark = SDK_WARNINGS


def telling(word: str) -> str:
    """Return the source of a function that returns ``word``, its version and the alias it was called by."""
    return f"def handler(event, context):\n    return [{word!r}, context.getVersion(), context.getAlias()]\n"


def recode(platform: Platform, name: str, source: str) -> Any:
    code = fg.FuncCode(file=encoded(source.encode()))
    return ask(platform, "UpdateFunctionCode", name, code_type="inline", func_code=code)


def publish(platform: Platform, name: str, version: str | None = None, **fields: str) -> Any:
    return ask(platform, "CreateFunctionVersion", name, version=version, **fields)


def create_with_versions(platform: Platform, name: str, count: int = 2, **fields: object) -> None:
    """Create a function with versions v1, v2 … that return their name; ``latest`` returns ``new``."""
    create(platform, name, telling("v1"), **fields)
    for number in range(1, count + 1):
        recode(platform, name, telling(f"v{number}"))
        publish(platform, name, f"v{number}")
    recode(platform, name, telling("new"))


def call(platform: Platform, function: str) -> Any:
    """Invoke synchronously and return the result."""
    return json.loads(ask(platform, "InvokeFunction", function, body={}).raw_content)


def accept(platform: Platform, function: str) -> str:
    request_id: str = ask(platform, "AsyncInvokeFunction", function, body={}).request_id
    return request_id


def plainly(platform: Platform, method: str, path: str, body: object = None, **headers: str) -> Reply:
    """Send a request about a function without the SDK, with raw colons in the path."""
    return platform.engine.ask(method, f"/v2/{PROJECT}/fgs/functions/{path}", body, headers=headers)


# --- versions -----------------------------------------------------------------------------------------------


def test_a_version_is_published_shown_and_invoked(platform: Platform) -> None:
    create(platform, "published", telling("old"))
    version = publish(platform, "published:v1", "v1", description="first")  # as Serverless Devs names it
    recode(platform, "published", telling("new"))

    shown, coded = (ask(platform, f"ShowFunction{part}", "published:v1") for part in ("Config", "Code"))

    assert (version.version, version.version_description) == ("v1", "first")
    assert version.func_urn == shown.func_urn == urn_of("published", ":v1")
    assert (shown.digest, coded.func_code.file) == (version.digest, encoded(telling("old").encode()))
    assert call(platform, "published:v1") == ["old", "v1", ""]
    assert call(platform, "published") == ["new", "latest", ""]
    record = ended(platform, "published", accept(platform, "published:v1"))
    assert (json.loads(record["result"]), record["function_urn"]) == (["old", "v1", ""], version.func_urn)


def test_versions_are_listed_in_pages_with_their_settings(platform: Platform) -> None:
    create(platform, "paged", telling("v1"))
    ask(platform, "UpdateFunctionAsyncInvokeConfig", "paged", max_async_retry_attempts=3)
    first = publish(platform, "paged", "v1")
    recode(platform, "paged", telling("v2"))
    publish(platform, "paged", "v2")

    pages = [ask(platform, "ListFunctionVersions", "paged", marker=marker, maxitems="2") for marker in ("0", "2")]

    assert [[item.version for item in page.versions] for page in pages] == [["latest", "v1"], ["v2"]]
    assert [(page.next_marker, page.count) for page in pages] == [(2, 3), (3, 3)]
    assert first.function_async_config.max_async_retry_attempts == 3
    assert pages[1].versions[0].function_async_config.max_async_retry_attempts == 3


def test_a_version_needs_no_body_and_no_name(platform: Platform) -> None:
    create(platform, "nameless", telling("v1"))

    version = ask(platform, "CreateFunctionVersion", "nameless").version

    assert version[0] == "v"
    assert (len(version), version[9]) == (16, "-")


def test_what_waits_for_a_deleted_version_is_discarded(platform: Platform) -> None:
    create_with_versions(platform, "waited", 1)
    doomed, spared = (
        plainly(platform, "POST", f"{urn}/invocations-async", {}, **{"X-Functiond-Delay": "1.5"}).json["request_id"]
        for urn in (urn_of("waited", ":v1"), urn_of("waited"))
    )

    ask(platform, "DeleteFunction", "waited:v1")

    record = ended(platform, "waited", doomed)
    assert (record["status"], record["error_message"]) == ("DISCARD", "version v1 was deleted")
    assert ended(platform, "waited", spared)["status"] == "SUCCESS"


def test_the_instances_of_a_deleted_version_end_and_the_others_stay(platform: Platform) -> None:
    source = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    create(platform, "lived", source)
    publish(platform, "lived", "v1")
    kept, doomed = call(platform, "lived"), call(platform, "lived:v1")
    watched = os.pidfd_open(doomed)
    try:
        ask(platform, "DeleteFunction", "lived:v1")

        assert select.select([watched], [], [], 30)[0]
        assert call(platform, "lived") == kept
    finally:
        os.close(watched)


def test_a_function_is_collected_and_let_go(platform: Platform) -> None:
    create(platform, "liked", telling("v1"))

    for state in ("true", "false"):
        assert ask(platform, "UpdateFunctionCollectState", "liked", state=state).status_code == 200
        shown = plainly(platform, "GET", f"{urn_of('liked')}/config").json
        assert shown["collected"] is (state == "true")


# --- aliases ------------------------------------------------------------------------------------------------


def test_an_alias_is_created_shown_listed_changed_and_deleted(platform: Platform) -> None:
    create_with_versions(platform, "named")
    prod = {"alias_name": "prod"}

    made = ask(platform, "CreateVersionAlias", "named", name="prod", version="v1", description="main")
    ask(platform, "UpdateVersionAlias", "named", **prod, version="v2", additional_version_weights={"v1": 10})
    shown = ask(platform, "ShowVersionAlias", "named", **prod)
    listed = ask(platform, "ListVersionAliases", "named")
    deleted = ask(platform, "DeleteVersionAlias", "named", **prod)

    assert (made.alias_urn, made.description) == (urn_of("named", ":!prod"), "main")
    assert (shown.version, shown.additional_version_weights, shown.description) == ("v2", {"v1": 10}, "")
    assert [item.name for item in listed.body] == ["prod"]
    assert deleted.status_code == 204
    assert not ask(platform, "ListVersionAliases", "named").body


def test_a_call_by_alias_runs_its_version_and_says_so(platform: Platform) -> None:
    create_with_versions(platform, "routed", 1)
    ask(platform, "CreateVersionAlias", "routed", name="prod", version="v1")

    record = ended(platform, "routed", accept(platform, "routed:!prod"))

    assert call(platform, "routed:!prod") == ["v1", "v1", "prod"]
    assert json.loads(record["result"]) == ["v1", "v1", "prod"]
    assert (record["function_urn"], record["alias"]) == (urn_of("routed", ":v1"), "prod")
    reply = plainly(platform, "POST", f"{urn_of('routed', ':!prod')}/invocations", {})
    assert (reply.status, reply.json[0]) == (200, "v1")


def test_an_alias_can_be_a_destination(platform: Platform) -> None:
    create_with_versions(platform, "goal")
    create(platform, "start")
    ask(platform, "CreateVersionAlias", "goal", name="prod", version="v2")
    param = json.dumps({"func_urn": urn_of("goal", ":!prod")})
    target = fg.FuncDestinationConfig(destination="FunctionGraph", param=param)
    destinations = fg.FuncAsyncDestinationConfig(on_success=target)
    ask(platform, "UpdateFunctionAsyncInvokeConfig", "start", destination_config=destinations)

    ended(platform, "start", accept(platform, "start"))
    arrived = until(lambda: ask(platform, "ListAsyncInvocations", urn_of("goal", "")).invocations)
    record = ended(platform, "goal", arrived[0].request_id)

    assert (json.loads(record["result"]), record["source"]) == (["v2", "v2", "prod"], "FunctionGraph")
