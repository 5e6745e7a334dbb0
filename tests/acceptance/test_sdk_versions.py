"""Vendor's SDK with versions and aliases, on an engine process."""

from __future__ import annotations

import json
import os
import select
from typing import Any

from tests.acceptance.engine_process import Reply
from tests.acceptance.sdk import PROJECT, SDK_WARNINGS, Platform, create, encoded, ended, fg, refused, urn_of

pytestmark = SDK_WARNINGS


def telling(word: str) -> str:
    """Return the source of a function that returns ``word``, its version and the alias it was called by."""
    return f"def handler(event, context):\n    return [{word!r}, context.getVersion(), context.getAlias()]\n"


def recode(platform: Platform, name: str, source: str) -> Any:
    code = fg.FuncCode(file=encoded(source.encode()))
    body = fg.UpdateFunctionCodeRequestBody(code_type="inline", func_code=code)
    return platform.client.update_function_code(fg.UpdateFunctionCodeRequest(function_urn=urn_of(name), body=body))


def publish(platform: Platform, name: str, version: str | None = None, **fields: str) -> Any:
    body = fg.CreateFunctionVersionRequestBody(version=version, **fields)
    return platform.client.create_function_version(
        fg.CreateFunctionVersionRequest(function_urn=urn_of(name), body=body)
    )


def create_with_versions(platform: Platform, name: str, count: int = 2, **fields: object) -> None:
    """Create a function with versions v1, v2 … that return their name; ``latest`` returns ``new``."""
    create(platform, name, telling("v1"), **fields)
    for number in range(1, count + 1):
        recode(platform, name, telling(f"v{number}"))
        publish(platform, name, f"v{number}")
    recode(platform, name, telling("new"))


def alias(platform: Platform, name: str, alias: str, version: str, **fields: Any) -> Any:
    body = fg.CreateVersionAliasRequestBody(name=alias, version=version, **fields)
    return platform.client.create_version_alias(fg.CreateVersionAliasRequest(function_urn=urn_of(name), body=body))


def realias(platform: Platform, name: str, alias: str, version: str, **fields: Any) -> Any:
    body = fg.UpdateVersionAliasRequestBody(version=version, **fields)
    request = fg.UpdateVersionAliasRequest(function_urn=urn_of(name), alias_name=alias, body=body)
    return platform.client.update_version_alias(request)


def unalias(platform: Platform, name: str, alias: str) -> Any:
    request = fg.DeleteVersionAliasRequest(function_urn=urn_of(name), alias_name=alias)
    return platform.client.delete_version_alias(request)


def delete(platform: Platform, name: str, qualifier: str) -> Any:
    return platform.client.delete_function(fg.DeleteFunctionRequest(function_urn=urn_of(name, qualifier)))


def call(platform: Platform, name: str, qualifier: str, **headers: str) -> Any:
    """Invoke synchronously, with extra headers, and return the result."""
    invoker = platform.client.invoke_function_invoker(
        fg.InvokeFunctionRequest(function_urn=urn_of(name, qualifier), body={})
    )
    for header, value in headers.items():
        invoker.add_header(header.replace("_", "-"), value)
    return json.loads(invoker.invoke().raw_content)


def accept(platform: Platform, name: str, qualifier: str, **headers: str) -> str:
    invoker = platform.client.async_invoke_function_invoker(
        fg.AsyncInvokeFunctionRequest(function_urn=urn_of(name, qualifier), body={})
    )
    for header, value in headers.items():
        invoker.add_header(header.replace("_", "-"), value)
    request_id: str = invoker.invoke().request_id
    return request_id


def ask(platform: Platform, method: str, path: str, body: object = None) -> Reply:
    """Send a request without the SDK, with raw colons in the path."""
    return platform.engine.ask(method, f"/v2/{PROJECT}/fgs{path}", body)


# --- versions -----------------------------------------------------------------------------------------------


def test_a_version_is_published_shown_and_invoked(platform: Platform) -> None:
    create(platform, "published", telling("old"))
    version = publish(platform, "published", "v1", description="first")
    recode(platform, "published", telling("new"))

    config = fg.ShowFunctionConfigRequest(function_urn=urn_of("published", ":v1"))
    code = fg.ShowFunctionCodeRequest(function_urn=urn_of("published", ":v1"))
    shown, coded = platform.client.show_function_config(config), platform.client.show_function_code(code)

    assert (version.version, version.version_description) == ("v1", "first")
    assert version.func_urn == shown.func_urn == urn_of("published", ":v1")
    assert (shown.digest, coded.func_code.file) == (version.digest, encoded(telling("old").encode()))
    assert call(platform, "published", ":v1") == ["old", "v1", ""]
    assert call(platform, "published", ":latest") == ["new", "latest", ""]
    record = ended(platform, "published", accept(platform, "published", ":v1"))
    assert (json.loads(record["result"]), record["function_urn"]) == (["old", "v1", ""], version.func_urn)


def test_versions_are_listed_in_pages_with_their_settings(platform: Platform) -> None:
    create(platform, "paged", telling("v1"))
    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(max_async_retry_attempts=3)
    request = fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn_of("paged"), body=body)
    platform.client.update_function_async_invoke_config(request)
    first = publish(platform, "paged", "v1")
    recode(platform, "paged", telling("v2"))
    publish(platform, "paged", "v2")

    pages = [
        platform.client.list_function_versions(
            fg.ListFunctionVersionsRequest(function_urn=urn_of("paged"), marker=marker, maxitems="2")
        )
        for marker in ("0", "2")
    ]

    assert [[item.version for item in page.versions] for page in pages] == [["latest", "v1"], ["v2"]]
    assert [(page.next_marker, page.count) for page in pages] == [(2, 3), (3, 3)]
    assert first.function_async_config.max_async_retry_attempts == 3
    assert pages[1].versions[0].function_async_config.max_async_retry_attempts == 3


def test_a_version_needs_no_body_and_no_name(platform: Platform) -> None:
    create(platform, "nameless", telling("v1"))

    version = platform.client.create_function_version(
        fg.CreateFunctionVersionRequest(function_urn=urn_of("nameless"))
    ).version

    assert version[0] == "v"
    assert (len(version), version[9]) == (16, "-")


def test_what_waits_for_a_deleted_version_is_discarded(platform: Platform) -> None:
    create_with_versions(platform, "waited", 1)
    doomed = accept(platform, "waited", ":v1", X_Functiond_Delay="1.5")
    spared = accept(platform, "waited", ":latest", X_Functiond_Delay="1.5")

    delete(platform, "waited", ":v1")

    record = ended(platform, "waited", doomed)
    assert (record["status"], record["error_message"]) == ("DISCARD", "version v1 was deleted")
    assert ended(platform, "waited", spared)["status"] == "SUCCESS"


def test_the_instances_of_a_deleted_version_end_and_the_others_stay(platform: Platform) -> None:
    source = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    create(platform, "lived", source)
    publish(platform, "lived", "v1")
    kept, doomed = call(platform, "lived", ":latest"), call(platform, "lived", ":v1")
    watched = os.pidfd_open(doomed)
    try:
        delete(platform, "lived", ":v1")

        assert select.select([watched], [], [], 30)[0]
        assert call(platform, "lived", ":latest") == kept
    finally:
        os.close(watched)


def test_a_function_is_collected_and_let_go(platform: Platform) -> None:
    create(platform, "liked", telling("v1"))

    for state in ("true", "false"):
        request = fg.UpdateFunctionCollectStateRequest(func_urn=urn_of("liked"), state=state)
        assert platform.client.update_function_collect_state(request).status_code == 200
        shown = ask(platform, "GET", f"/functions/{urn_of('liked')}/config").json
        assert shown["collected"] is (state == "true")


# --- aliases ------------------------------------------------------------------------------------------------


def test_an_alias_is_created_shown_listed_changed_and_deleted(platform: Platform) -> None:
    create_with_versions(platform, "named")
    client, urn = platform.client, urn_of("named")

    made = alias(platform, "named", "prod", "v1", description="main")
    realias(platform, "named", "prod", "v2", additional_version_weights={"v1": 10})
    shown = client.show_version_alias(fg.ShowVersionAliasRequest(function_urn=urn, alias_name="prod"))
    listed = client.list_version_aliases(fg.ListVersionAliasesRequest(function_urn=urn))
    deleted = unalias(platform, "named", "prod")

    assert (made.alias_urn, made.description) == (urn_of("named", ":!prod"), "main")
    assert (shown.version, shown.additional_version_weights, shown.description) == ("v2", {"v1": 10}, "")
    assert [item.name for item in listed.body] == ["prod"]
    assert deleted.status_code == 204
    assert not client.list_version_aliases(fg.ListVersionAliasesRequest(function_urn=urn)).body
    with refused(404, "FSS.1053"):
        unalias(platform, "named", "prod")
    with refused(404, "FSS.1053"):
        realias(platform, "named", "prod", "v1")


def test_a_call_by_alias_runs_its_version_and_says_so(platform: Platform) -> None:
    create_with_versions(platform, "routed", 1)
    alias(platform, "routed", "prod", "v1")

    record = ended(platform, "routed", accept(platform, "routed", ":!prod"))

    assert call(platform, "routed", ":!prod") == ["v1", "v1", "prod"]
    assert json.loads(record["result"]) == ["v1", "v1", "prod"]
    assert (record["function_urn"], record["alias"]) == (urn_of("routed", ":v1"), "prod")
    reply = ask(platform, "POST", f"/functions/{urn_of('routed', ':!prod')}/invocations", {})
    assert (reply.status, reply.json[0]) == (200, "v1")


def test_an_alias_can_be_a_destination(platform: Platform) -> None:
    create_with_versions(platform, "goal")
    create(platform, "start")
    alias(platform, "goal", "prod", "v2")
    target = fg.FuncDestinationConfig(
        destination="FunctionGraph", param=json.dumps({"func_urn": urn_of("goal", ":!prod")})
    )
    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(
        destination_config=fg.FuncAsyncDestinationConfig(on_success=target)
    )
    config = fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn_of("start"), body=body)
    platform.client.update_function_async_invoke_config(config)

    ended(platform, "start", accept(platform, "start", ":latest"))
    record = ended(platform, "goal", arrived(platform, "goal"))

    assert (json.loads(record["result"]), record["source"]) == (["v2", "v2", "prod"], "FunctionGraph")


def arrived(platform: Platform, name: str) -> str:
    """Wait for the function's first invocation and return its request id."""
    for _ in range(600):
        request = fg.ListAsyncInvocationsRequest(function_urn=urn_of(name, ""))
        found = platform.client.list_async_invocations(request).invocations
        if found:
            request_id: str = found[0].request_id
            return request_id
    raise AssertionError(f"{name} was never invoked")
