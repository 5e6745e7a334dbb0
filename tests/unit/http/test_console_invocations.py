"""Pages of invocations for roles, and requests that no page makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from engine.code.store import CodeSource
from engine.http.console.overview.concerns import NAMED
from engine.http.console.paths import HOME, SIGN_IN
from engine.logs.lines import STDOUT, encode
from engine.storage.sqlite.connection import Readers
from tests.support.console import form_token
from tests.support.http_app import PROJECT, SOURCE, encoded
from tests.support.storages import NOW, failure, made, retried, settled, started, stored, success
from tests.support.triggering import House, api_client, house

RIGHTS: Mapping[str, dict[str, Any]] = {
    "admin": {},
    "read": {"role": "read"},
    "payloads": {"role": "read", "payloads": True},
}
HERE = f"{HOME}projects/{PROJECT}"
API = f"/v2/{PROJECT}/fgs/functions/hello"
ALIAS = f"/v2/{PROJECT}/fgs/functions/{PROJECT}:default:hello:!prod"
SECRET = "what-only-some-may-see"


TOKENS = {rights: {"token": f"the-token-with-the-rights-{rights}"} for rights in RIGHTS}


def headers(rights: str) -> dict[str, str]:
    return {"X-Auth-Token": TOKENS[rights]["token"]}


@asynccontextmanager
async def console(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    tokens = [{**TOKENS[name], "project": PROJECT, **fields} for name, fields in RIGHTS.items()]
    async with house(folder, auth__tokens=tokens) as place, api_client(place) as client:
        yield place, client


@pytest.fixture
async def request_id(client: httpx.AsyncClient) -> str:
    """Send an invocation, which waits and never starts."""
    sent = await client.post(f"{API}/invocations-async", json={"k": SECRET}, headers=headers("admin"))
    request_id: str = sent.json()["request_id"]
    return request_id


async def test_events_and_actions_are_for_those_who_may(client: httpx.AsyncClient, request_id: str) -> None:
    path = f"{HERE}/invocations/{request_id}"
    pages = {rights: await client.get(path, headers=headers(rights)) for rights in RIGHTS}
    events = {rights: await client.get(f"{path}/event", headers=headers(rights)) for rights in RIGHTS}
    editors = {rights: await client.get(f"{path}/again", headers=headers(rights)) for rights in RIGHTS}
    many = f"{HERE}/functions/hello/invocations/cancel"
    previews = {rights: await client.get(many, headers=headers(rights)) for rights in RIGHTS}
    listed = await client.get(f"{HERE}/functions/hello/invocations", headers=headers("read"))

    assert {rights for rights, page in pages.items() if SECRET in page.text} == {"admin", "payloads"}
    assert {rights for rights, page in pages.items() if "Cancel invocation" in page.text} == {"admin"}
    assert {rights for rights, reply in events.items() if reply.status_code == 200} == {"admin", "payloads"}
    assert events["read"].status_code == 403
    assert events["admin"].headers["content-disposition"] == f'attachment; filename="{request_id}-event.json"'
    assert events["admin"].headers["content-type"] == "text/plain; charset=utf-8"
    assert {rights for rights, reply in editors.items() if reply.status_code == 200} == {"admin"}
    assert {rights for rights, reply in previews.items() if reply.status_code == 200} == {"admin"}
    assert "Cancel these" not in listed.text


#: Forms with valid fields, by path.
CHANGES: Mapping[str, dict[str, str]] = {
    "create-function": {"func_name": "new", "runtime": "Python3.10", "memory_size": "128", "timeout": "30"},
    "functions/hello/dependencies": {},
    "functions/hello/delete": {"name": "hello"},
    "functions/hello/test": {"event": "{}"},
    "functions/hello/configuration/asynchronous": {"max_async_retry_attempts": "1"},
    "deliveries": {"one": "redrive-1"},
    "deliveries/discard": {},
}


async def test_an_action_is_refused_to_a_reader(client: httpx.AsyncClient, request_id: str) -> None:
    path = f"{HERE}/invocations/{request_id}"
    await client.post(SIGN_IN, data=TOKENS["read"])
    data = {"form_token": await form_token(client, path)}
    replies = [await client.post(f"{path}/{action}", data=data) for action in ("cancel", "redrive", "again", "deliver")]
    many = await client.post(f"{HERE}/functions/hello/invocations/cancel", data=data)
    others = [await client.post(f"{HERE}/{path}", data=data | fields) for path, fields in CHANGES.items()]
    record = await client.get(f"{API}/async-invocations/{request_id}", headers=headers("read"))

    assert [reply.status_code for reply in (*replies, many, *others)] == [403] * (5 + len(CHANGES))
    assert "may not use CancelAsyncInvocations" in many.text
    assert record.json()["status"] == "WAIT"


#: Queries that no page makes, and the status of their pages.
QUERIES = {
    "after=9:0.0:1": 200,
    "after=4:0.0:9999999999999999999": 400,
    "after=1:1e400:1": 400,
    "before=4:nan:1": 400,
    "limit=0&read=x": 400,
    "limit=99999": 200,
    "time=century": 400,
    "code=-1": 400,
    "begin=yesterday": 400,
    "end=9999-99-99T00:00": 400,
    "request=ffffffff-ffff-7fff-8": 200,
    "text=" + "x" * 201: 400,
    "text=%25%5C_%00": 200,
    "source=%27%20OR%201=1": 200,
    "function=hello:v9": 404,
    "function=" + "x" * 300: 400,
}


async def test_queries_that_no_page_makes_get_a_page(client: httpx.AsyncClient) -> None:
    replies = {query: await client.get(f"{HERE}/invocations?{query}", headers=headers("read")) for query in QUERIES}

    assert {query: reply.status_code for query, reply in replies.items()} == QUERIES
    assert {reply.headers["content-type"] for reply in replies.values()} == {"text/html; charset=utf-8"}


async def test_a_function_is_named_with_its_version_or_alias(client: httpx.AsyncClient, request_id: str) -> None:
    for target, body in (("versions", {"version": "v1"}), ("aliases", {"name": "prod", "version": "v1"})):
        assert (await client.post(f"{API}/{target}", json=body, headers=headers("admin"))).status_code < 300
    sent = await client.post(f"{ALIAS}/invocations-async", json={}, headers=headers("admin"))
    by_alias = sent.json()["request_id"]
    shown = {
        name: (await client.get(f"{HERE}/invocations?function={name}", headers=headers("admin"))).text
        for name in ("hello", "hello:latest", "default:hello", "hello:v1", "hello:!prod", "default:hello:v1")
    }

    assert {name for name, text in shown.items() if request_id in text} == {"hello", "hello:latest", "default:hello"}
    assert {name for name, text in shown.items() if by_alias in text} == {*shown} - {"hello:latest"}


async def test_forms_that_no_page_makes_are_refused(client: httpx.AsyncClient, request_id: str) -> None:
    hello, number = f"{HERE}/functions/hello", "9" * 5000
    await client.post(SIGN_IN, data=TOKENS["admin"])
    token = {"form_token": await form_token(client, hello)}
    forms = {
        f"{hello}/invocations/cancel": {"text": "x"},  # many are not chosen by text
        f"{HERE}/invocations/{request_id}/deliver": {"delivery": number},
        f"{hello}/configuration/concurrency": {"priority_cap": number},
        f"{hello}/code": {"code": ""},
    }
    replies = [await client.post(path, data={**token, **fields}) for path, fields in forms.items()]
    shown = await client.get(f"{hello}/invocations/cancel?text=x")
    record = await client.get(f"{API}/async-invocations/{request_id}", headers=headers("admin"))

    assert [reply.status_code for reply in (*replies, shown)] == [400] * 5
    assert (record.json()["status"], "write some code" in replies[-1].text) == ("WAIT", True)


async def test_the_path_of_a_form_leads_to_its_page(client: httpx.AsyncClient) -> None:
    pages = {
        "functions/hello/code": "functions/hello",
        "functions/a%3Ab/test/save": "functions/a%3Ab/test",
        "functions/hello/configuration/concurrency/controls": "functions/hello/configuration/concurrency",
    }
    replies = {path: await client.get(f"{HERE}/{path}", headers=headers("read")) for path in pages}
    unknown = await client.get(f"{HERE}/functions/hello/nothing", headers=headers("read"))

    assert {path: reply.headers["location"] for path, reply in replies.items()} == {
        path: f"{HERE}/{page}" for path, page in pages.items()
    }
    assert unknown.status_code == 404


async def test_attempts_that_failed_and_are_tried_again_are_listed(tmp_path: Path) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        storage, here = place.engine.storage, f"{HERE}/functions/hello/invocations"
        first = await started(storage, version="latest")
        retry = await retried(storage, first, failure(first, message="no stock"))
        await stored(storage, version="latest")
        failed = (await client.get(f"{here}?status=FAIL")).text
        listed = (await client.get(f"{here}?status=WAIT%2CRUNNING&code=any")).text
        cancel = await client.get(f"{here}/cancel?status=WAIT&code=any")

    assert "Attempts that failed and are tried again are under" in failed
    assert 'href="?status=WAIT%2CRUNNING&amp;code=any"' in failed
    assert listed.count('<tr data-key="') == 1
    assert f'<tr data-key="{retry.request_id}">' in listed
    assert "no stock" in listed
    assert "Cancel these" not in listed
    assert cancel.status_code == 400


async def test_an_invocation_that_never_started_has_no_attempts(client: httpx.AsyncClient, request_id: str) -> None:
    path = f"{HERE}/invocations/{request_id}"
    listed = await client.get(f"{HERE}/invocations", headers=headers("read"))
    waiting = await client.get(path, headers=headers("read"))
    await client.post(f"{API}/cancel", json={"request_id": request_id, "type": "force"}, headers=headers("admin"))
    ended = await client.get(path, headers=headers("read"))

    assert '<td data-label="Attempts" class="amount">0</td>' in listed.text
    for page in (waiting, ended):
        assert "<dt>Attempts</dt><dd>0</dd>" in page.text


async def test_a_second_redrive_says_that_nothing_was_sent(client: httpx.AsyncClient, request_id: str) -> None:
    await client.post(f"{API}/cancel", json={"request_id": request_id, "type": "force"}, headers=headers("admin"))
    path, many = f"{HERE}/invocations/{request_id}", f"{HERE}/functions/hello/invocations/redrive"
    await client.post(SIGN_IN, data=TOKENS["admin"])
    token = {"form_token": await form_token(client, path)}
    pages = [await client.post(f"{path}/redrive", data=token, follow_redirects=True) for _ in range(2)]
    fields = {**token, "code": "4208", "total": "1", "done": "0", "refused": "0"}
    all_again = await client.post(many, data=fields)
    redrive = {"request_ids": [request_id]}
    reply = await client.post(f"{API}/async-invocations/redrive", json=redrive, headers=headers("admin"))

    first, second = (page.text for page in pages)
    assert f"Redriven. This invocation repeats {request_id}." in first
    assert f"Nothing was sent, as it was redriven before. This invocation repeats {request_id}." in second
    assert pages[0].url == pages[1].url
    assert "<b>0</b> invocations accepted again" in all_again.text
    assert "The others were sent again before, so nothing was sent for them." in all_again.text
    assert reply.json()["redriven"][0]["repeated"] is True


async def test_the_list_of_more_failing_functions_is_filtered(tmp_path: Path) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        hello = place.engine.catalog.route(place.urn)
        for number in range(NAMED + 2):
            other = replace(hello, function_id=0, name=f"failing{number}")
            await place.engine.catalog.create(other, CodeSource(kind="inline", file=encoded(SOURCE)))
            function = place.engine.catalog.list(PROJECT)[-1]
            invocation = made(place.engine.storage, function.function_id)
            place.engine.usage.note_attempt(
                function, invocation, failure(replace(invocation, due_at=place.engine.clock.now() - 1))
            )
        overview = (await client.get(HOME)).text
        link = f"{HERE}/functions?failing=1"
        listed = (await client.get(link)).text
        none = (await client.get(f"{link}&name=hello")).text

    assert f'href="{link}"' in overview
    assert listed.count("alarm") == NAMED + 2
    assert ">hello</a>" not in listed
    assert "No function whose name contains “hello” failed in the last 24 hours" in none


# --- logs of a function --------------------------------------------------------------------------------------


LOGS = f"{HOME}projects/{PROJECT}/functions/hello/logs"


async def test_the_log_of_a_function_is_one_search_however_many_wait_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches, call = list[object](), Readers.call

    def noting(readers: Readers, function: Any) -> Any:
        searches.append(function)
        return call(readers, function)

    monkeypatch.setattr(Readers, "call", noting)
    async with house(tmp_path) as place, api_client(place) as client:
        for number in range(25):
            invocation = await started(place.engine.storage)
            await settled(
                place.engine.storage,
                invocation,
                success(invocation, log=encode(int(NOW * 1000), STDOUT, b"%d." % number)),
            )
        searches.clear()
        page = (await client.get(LOGS)).text

    assert len(searches) == 1
    assert [number for number in range(25) if f">{number}.<" in page] == list(range(5, 25))
