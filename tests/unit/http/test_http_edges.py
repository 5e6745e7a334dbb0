"""Rules for every request: host guard, body limits, and errors in the API's form."""

from __future__ import annotations

import json

import pytest

from engine import errors
from engine.http.api.errors import error_reply
from engine.http.guard import is_local_host, is_local_origin
from tests.support.http_app import BASE, PROJECT, Api, urn_of
from tests.support.raw_client import first_answer


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:80"])
def test_names_of_this_machine_are_local(host: str) -> None:
    assert is_local_host(host.encode())
    assert is_local_origin(b"http://" + host.encode())


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "::1", "[127.0.0.1]",
     "localhost:x", "[localhost]", "127.0.0.1:80:80", "user@localhost", "0.0.0.0", "2130706433"],
)  # fmt: skip
def test_other_names_are_foreign(host: str) -> None:
    assert not is_local_host(host.encode())
    assert not is_local_origin(b"http://" + host.encode())


@pytest.mark.parametrize("origin", ["null", "", "file://", "http://localhost/path", "localhost"])
def test_origins_that_name_no_local_page_are_foreign(origin: str) -> None:
    assert not is_local_origin(origin.encode())


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Host": "evil.example"}, "is not this machine"),
        ({"Host": "evil.example"}, "an engine behind a proxy needs credentials (auth.file)"),
        ({"Origin": "https://evil.example"}, "web pages"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/healthz"), ("POST", f"{BASE}/{urn_of()}/invocations-async")])
async def test_foreign_pages_are_kept_out_and_those_of_this_machine_are_not(
    api: Api, headers: dict[str, str], said: str, method: str, path: str
) -> None:
    answer = await api.send(method, path, headers=headers, base="")

    assert (answer.status, answer.json["error_code"]) == (403, "FSS.0403")
    assert said in answer.json["error_msg"]
    own = await api.send("GET", "/healthz", headers={"Origin": "http://localhost:3000"}, base="")
    assert own.status == 200


async def test_every_error_has_the_apis_shape_and_a_request_id(api: Api) -> None:
    unknown = await api.send("GET", "/v2/nothing/here", base="")
    wrong = await api.send("DELETE", f"/{urn_of()}/config")
    missing = await api.invoke()

    assert [(a.status, a.json["error_code"]) for a in (unknown, wrong, missing)] == [
        (404, "FSS.0404"),
        (405, "FSS.0405"),
        (404, "FSS.1051"),
    ]
    assert wrong.headers["allow"] == "GET, PUT, PATCH, HEAD"
    assert all(a.headers["x-request-id"] and a.json["error_msg"] for a in (unknown, wrong, missing))
    assert all(a.json.keys() == {"error_code", "error_msg"} for a in (unknown, wrong, missing))
    workflow = await api.send("GET", f"/v2/{PROJECT}/fgs/workflow-statistic?metric_type=joy", base="")
    assert (workflow.status, workflow.json["error_code"]) == (400, "FGS.3002")
    assert workflow.json["request_id"] == workflow.headers["x-request-id"]


async def test_an_internal_error_does_not_show_its_message(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    await api.create()
    api.engine.refuses = ZeroDivisionError("secret")

    answer = await api.invoke()

    assert (answer.status, answer.json["error_code"]) == (500, "FSS.0500")
    assert b"secret" not in answer.raw
    assert "secret" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("text/plain", b"{}"),
        ("", b"{}"),
        ("application/json", b"{"),
        ("application/json", b"{} {}"),
        ("application/json", b'"\xff"'),
        ("application/json", b"[" * 100_000),
        ("application/jsonp", b"{}"),
    ],
)
@pytest.mark.parametrize("path", [f"/{urn_of()}/invocations-async", f"/{urn_of()}/invocations", ""])
async def test_a_body_that_is_not_json_is_refused(api: Api, kind: str, problem: bytes, path: str) -> None:
    await api.create()

    answer = await api.send("POST", path, problem, {"Content-Type": kind})

    assert (answer.status, answer.json["error_code"]) == (406, "FSS.0406")
    assert not api.engine.requests


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_may_be_said_with_a_charset_and_hold_any_text(api: Api, kind: str) -> None:
    await api.create()

    answer = await api.send("POST", f"/{urn_of()}/invocations-async", '"é中"'.encode(), {"Content-Type": kind})

    assert answer.status == 202
    assert api.engine.requests[0].payload == '"é中"'.encode()


@pytest.mark.parametrize(("action", "limit"), [("invocations-async", 256 << 10), ("invocations", 6 << 20)])
async def test_a_body_holds_up_to_its_limit_and_not_a_byte_more(api: Api, action: str, limit: int) -> None:
    await api.create()
    body = b'"' + b"x" * (limit - 2) + b'"'

    fits = await api.send("POST", f"/{urn_of()}/{action}", body)
    over = await api.send("POST", f"/{urn_of()}/{action}", b" " + body)

    assert fits.status in (200, 202)
    assert (over.status, over.json["error_code"]) == (413, "FSS.0413")
    assert len(api.engine.requests) == 1


@pytest.mark.parametrize(
    ("urn", "status", "code"),
    [
        (f"urn:fss:local-1:{PROJECT}:function:default:hello:latest", 202, None),
        (f"urn%3Afss%3Alocal-1%3A{PROJECT}%3Afunction%3Adefault%3Ahello%3Alatest", 202, None),
        (f"urn:fss:elsewhere:{PROJECT}:function:default:hello", 202, None),
        ("hello", 202, None),
        ("default:hello", 202, None),
        ("%68ello", 202, None),
        ("urn:fss:local-1:other:function:default:hello", 403, "FSS.0403"),
        ("hello:x:y:z:w", 400, "FSS.1309"),
        ("urn:fss", 400, "FSS.1309"),
        ("%ff", 400, "FSS.1309"),
        ("hello%2Fx", 404, "FSS.1051"),
        (f"{PROJECT}:default:hello:v1", 404, "FSS.1052"),
        (f"{PROJECT}:default:hello:!prod", 404, "FSS.1053"),
        (f"{PROJECT}:default:hello:%21prod", 404, "FSS.1053"),
    ],
)
async def test_a_function_is_named_in_many_ways(api: Api, urn: str, status: int, code: str | None) -> None:
    await api.create()

    answer = await api.send("POST", f"/{urn}/invocations-async")

    assert (answer.status, answer.json.get("error_code")) == (status, code)


async def test_a_path_of_another_project_does_not_see_this_one(api: Api) -> None:
    await api.create()

    answer = await api.send("POST", "/v2/other/fgs/functions/hello/invocations-async", base="")
    odd = await api.send("POST", "/v2/a%3Ab/fgs/functions/hello/invocations-async", base="")

    assert (answer.status, odd.status) == (404, 400)


def test_every_error_that_a_request_may_meet_has_its_status_and_code() -> None:
    cases = {
        errors.InvalidField("timeout", 1, ""): (400, "FSS.1008"),
        errors.InvalidField("destination_config.on_success", 1, ""): (400, "FSS.0400"),
        errors.CodeMissing("zip"): (400, "FSS.1012"),
        errors.TooManyVariables("user_data", 21, 20): (400, "FSS.1017"),
        errors.VariablesTooLarge("user_data", 5000, 4096): (400, "FSS.1018"),
        errors.CodePackageTooLarge(1): (413, "FSS.1071"),
        errors.InlineCodeTooLarge(1): (413, "FSS.1072"),
        errors.IdempotencyConflict("k"): (409, "FSS.0409"),
        errors.TooManyFunctions(400): (403, "FSS.1041"),
        errors.FunctionDisabled("f"): (429, "FSS.0429"),
        errors.UnknownInvocation("r"): (404, "FSS.0404"),
        errors.NoAsyncSettings("u"): (404, "FSS.0404"),
        errors.BadExtraVersion("v9"): (400, "FSS.1091"),
        errors.BadWeight("v3", 101, "from 0 to 100"): (400, "FSS.1092"),
        errors.SameVersion("v2"): (400, "FSS.1093"),
        errors.NothingToPublish("v1"): (400, "FSS.1016"),
        errors.VersionExists("v1"): (409, "FSS.1062"),
        errors.AliasExists("prod"): (409, "FSS.1063"),
        errors.VersionTaken("v1", "prod"): (409, "FSS.1066"),
        errors.TooManyVersions(20): (403, "FSS.0403"),
        errors.TooManyAliases(10): (403, "FSS.1043"),
        errors.VersionInUse("v2", "prod"): (403, "FSS.1094"),
        errors.AliasInUse("live"): (403, "FSS.1154"),
        errors.CodeQuotaExceeded(1, 2, 3): (403, "FSS.1042"),
        errors.TooManyTriggers("TIMER", 10): (403, "FSS.1123"),
        errors.CallTimedOut(90): (504, "FSS.0504"),
        errors.SettingsError("x"): (500, "FSS.0500"),
    }

    replies = {error: error_reply(error) for error in cases}

    assert {error: (reply.status, json.loads(reply.body)["error_code"]) for error, reply in replies.items()} == cases


@pytest.mark.parametrize("call", ["invocations", "invocations-async"])
@pytest.mark.parametrize("framing", [b"Content-Length: 200000", b"Transfer-Encoding: chunked"])
async def test_an_unknown_function_is_refused_before_its_event_is_read(api: Api, call: str, framing: bytes) -> None:
    path = f"{BASE}/{urn_of('absent')}/{call}".encode()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b\r\nContent-Type: application/json\r\n\r\n" % (path, framing)

    assert (await first_answer(api.port, head)).startswith(b"HTTP/1.1 404 ")
