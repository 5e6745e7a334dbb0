"""Console of an engine with credentials: sessions, and what neither a session nor a page of another site may do."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.acceptance.two_keys import OTHERS_TOKEN, SECRET, TOKEN, two_keys

pytestmark = pytest.mark.long

HOME = "/console/"
MINE, OTHERS = f"{HOME}projects/{PROJECT}/functions", f"{HOME}projects/another/functions"
WRONG = {"kind": "token", "token": "a-token-of-nobody"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("console_auth")
    with engine_on(folder / "data", **two_keys(folder)) as engine:
        engine.headers["X-Auth-Token"] = TOKEN
        engine.create("mine", "def handler(event, context):\n    return event\n")
        engine.headers.clear()
        yield engine


def post(engine: EngineProcess, path: str, fields: Mapping[str, str], **headers: str) -> Reply:
    """Send a form like a page of the console; underscores in names stand for dashes, empty headers are not sent."""
    given = {"Content_Type": "application/x-www-form-urlencoded", "Origin": engine.url, **headers}
    named = {name.replace("_", "-"): value for name, value in given.items() if value}
    return engine.ask("POST", path, urlencode(fields).encode(), headers=named)


def sign_in(engine: EngineProcess, token: str = TOKEN, **headers: str) -> Reply:
    return post(engine, f"{HOME}sign-in", {"kind": "token", "token": token}, **headers)


def session(engine: EngineProcess, token: str = TOKEN) -> str:
    """Sign in, and return the cookie that a browser then sends."""
    reply = sign_in(engine, token)
    assert reply.status == 303, reply
    return reply.headers["set-cookie"].partition(";")[0]


def test_a_browser_without_a_session_gets_the_sign_in_page(engine: EngineProcess) -> None:
    page = visit(engine, f"{MINE}?page=1")

    assert page.reply.status == 401
    assert "Basic" not in page.reply.headers["www-authenticate"]  # browsers would prompt
    assert page.text.startswith("Sign in · functiond")
    assert {"type": "hidden", "name": "next", "value": f"{MINE}?page=1"} in [attributes for _, attributes in page.tags]
    assert page.links(f"{HOME}docs/") == []
    assert engine.ask("HEAD", MINE).status == 401


def test_what_a_browser_needs_to_ask_is_open(engine: EngineProcess) -> None:
    paths = ("/", "/console/static/console.css", "/console/static/icon.svg", "/console/sign-in")
    statuses = [engine.ask("GET", path, headers={"Accept": "text/html"}).status for path in paths]

    assert statuses == [307, 200, 200, 200]


def test_a_session_is_a_cookie_for_pages_only(engine: EngineProcess) -> None:
    reply = sign_in(engine)

    attributes = reply.headers["set-cookie"].split("; ")[1:]
    assert {"Path=/console/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"} == set(attributes)
    cookie = reply.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("functiond_session_0_")  # the port that the engine was told
    assert visit(engine, MINE, Cookie=cookie).column("Function") == ["mine"]
    for path in (f"/v2/{PROJECT}/fgs/functions", "/metrics", "/openapi.json"):
        assert engine.ask("GET", path, headers={"Cookie": cookie}).status == 401
    assert engine.ask("GET", MINE, headers={"Cookie": cookie}).headers["cache-control"] == "no-store"


def test_a_session_shows_its_own_project_only(engine: EngineProcess) -> None:
    own, refused = visit(engine, MINE, Cookie=session(engine)), visit(engine, OTHERS, Cookie=session(engine))
    another = visit(engine, HOME, Cookie=session(engine, OTHERS_TOKEN))

    assert own.column("Function") == ["mine"]
    assert (refused.reply.status, f"for project {PROJECT} only" in refused.text) == (403, True)
    assert refused.links(MINE) == [MINE]  # problem pages keep the navigation
    assert (set(another.links(OTHERS)), another.links(MINE)) == ({OTHERS}, [])


@pytest.mark.parametrize("wrong", ["x", f"{'x' * 43}", "", 'x"; y={"a": 1}'])
def test_no_other_cookie_opens_it(engine: EngineProcess, wrong: str) -> None:
    name, cookie = session(engine).split("=")
    refused = visit(engine, HOME, Cookie=f"{name}={wrong}")

    assert refused.reply.status == 401
    assert "Your session has ended" in refused.text
    assert visit(engine, HOME, Cookie=f'a={{"b": "c"}}; =; ;; {name}={cookie}').reply.status == 200


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_no_password_opens_it(engine: EngineProcess, scheme: str) -> None:
    given = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    page = visit(engine, HOME, Authorization=f"{scheme} {given}")

    assert page.reply.status == 401
    assert TOKEN not in page.reply.body.decode()


def test_programs_open_pages_with_the_headers_of_the_api(engine: EngineProcess) -> None:
    page = visit(engine, MINE, **{"X-Auth-Token": TOKEN})

    assert page.column("Function") == ["mine"]
    assert "set-cookie" not in page.reply.headers


def test_the_console_is_shown_through_a_proxy_on_this_machine(engine: EngineProcess) -> None:
    reply = sign_in(engine, Host="console.example.com", Origin="https://console.example.com")
    cookie = reply.headers["set-cookie"].partition(";")[0]

    assert visit(engine, HOME, Cookie=cookie, Host="console.example.com").reply.status == 200


FOREIGN = {
    "origin": {"Origin": "https://evil.example"},
    "null": {"Origin": "null"},
    "other port": {"Origin": "http://127.0.0.1:3000"},
    "site": {"Sec_Fetch_Site": "cross-site"},
    "same site": {"Sec_Fetch_Site": "same-site"},
    "referer": {"Origin": "", "Referer": "https://evil.example/page"},
    "referer without a scheme": {"Origin": "", "Referer": "evil"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_forms_of_other_pages_are_refused(engine: EngineProcess, headers: dict[str, str]) -> None:
    cookie = session(engine)
    fields = {"form_token": visit(engine, f"{MINE}/mine", Cookie=cookie).form_token}
    reply = post(engine, f"{MINE}/mine/pause", fields, Cookie=cookie, **headers)
    if "Referer" not in headers:
        assert post(engine, f"{HOME}sign-in", {"kind": "token", "token": TOKEN}, **headers).status == 403

    assert reply.status == 403
    assert "projects/" not in reply.body.decode()  # nothing is shown to such a page
    assert visit(engine, MINE, Cookie=cookie).reply.status == 200


def test_a_form_needs_the_token_of_its_own_session(engine: EngineProcess) -> None:
    first, second = session(engine), session(engine)
    tokens = [visit(engine, f"{MINE}/mine", Cookie=cookie).form_token for cookie in (first, second)]

    foreign = post(engine, f"{MINE}/mine/pause", {"form_token": tokens[1]}, Cookie=first)
    missing = post(engine, f"{MINE}/mine/pause", {}, Cookie=first)
    gone = post(engine, f"{MINE}/mine/pause", {"form_token": tokens[0]}, Referer=f"{engine.url}{MINE}/mine")
    own = post(engine, f"{MINE}/mine/pause", {"form_token": tokens[0], "reason": "x"}, Cookie=first)
    undone = post(engine, f"{MINE}/mine/resume", {"form_token": tokens[0]}, Cookie=first)

    assert (foreign.status, missing.status, own.status, undone.status) == (403, 403, 303, 303)
    assert gone.status == 401
    assert f'value="{MINE}/mine"' in gone.body.decode()
    assert "Nothing was changed" in gone.body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example/console/",
        "/console//evil.example",
        "/console/\\evil.example",
        "/console/../v2/x",
        "/console/%2e%2e/v2/x",
        "/console/sign-out",
        "/v2/project1/fgs/functions",
        "/console/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "/console/" + "x" * 3000,
    ],
)
def test_a_sign_in_leads_to_pages_of_the_console_only(engine: EngineProcess, path: str) -> None:
    reply = post(engine, f"{HOME}sign-in", {"kind": "token", "token": TOKEN, "next": path})

    assert (reply.status, reply.headers["location"]) == (303, HOME)
    shown = visit(engine, f"{HOME}sign-in?{urlencode({'next': path})}")
    assert {"type": "hidden", "name": "next", "value": ""} in [attributes for _, attributes in shown.tags]


def test_a_sign_in_begins_a_new_session_and_ends_the_earlier_one(engine: EngineProcess) -> None:
    earlier = session(engine)
    planted = earlier.partition("=")[0] + "=" + "p" * 43
    later = sign_in(engine, Cookie=earlier).headers["set-cookie"].partition(";")[0]
    fresh = sign_in(engine, Cookie=planted).headers["set-cookie"].partition(";")[0]

    assert len({earlier, later, fresh, planted}) == 4
    statuses = [visit(engine, HOME, Cookie=cookie).reply.status for cookie in (earlier, planted, later, fresh)]
    assert statuses == [401, 401, 200, 200]


def test_signing_out_ends_the_session(engine: EngineProcess) -> None:
    cookie = session(engine)
    fields = {"form_token": visit(engine, f"{MINE}/mine", Cookie=cookie).form_token}
    refused = post(engine, f"{HOME}sign-out", {}, Cookie=cookie)
    out = post(engine, f"{HOME}sign-out", fields, Cookie=cookie)

    assert (refused.status, out.status, out.headers["location"]) == (403, 303, f"{HOME}sign-in")
    assert visit(engine, HOME, Cookie=cookie).reply.status == 401
    assert post(engine, f"{HOME}sign-out", fields, Cookie=cookie).status == 303


KEY = {"kind": "key", "access": "AK1", "secret": SECRET}


def test_a_key_signs_in_and_its_refusals_do_not_tell_what_is_wrong(engine: EngineProcess) -> None:
    right = post(engine, f"{HOME}sign-in", KEY)
    fields = [{"access": "AK9"}, {"secret": "wrong-secret-of-a-key"}, {"security_token": "none-is-needed-here"}]
    wrong = [post(engine, f"{HOME}sign-in", KEY | field) for field in fields]
    empty = post(engine, f"{HOME}sign-in", KEY | {"secret": ""})

    assert (right.status, [reply.status for reply in wrong], empty.status) == (303, [401] * 3, 400)
    assert len({reply.body.replace(b"AK9", b"AK1") for reply in wrong}) == 1
    assert not any(SECRET.encode() in reply.body for reply in (*wrong, empty))


#: Headers of a request, and whether the console takes a secret key with it.
CONNECTIONS: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"Host": "engine.example"}, False),
    ({"X_Forwarded_For": "127.0.0.1"}, False),  # of a proxy that is not trusted
    ({"X_Forwarded_Proto": "https"}, False),
    ({"Via": "1.1 proxy"}, False),
]


@pytest.mark.parametrize(("headers", "taken"), CONNECTIONS)
def test_a_secret_key_is_taken_only_where_nobody_can_read_it(
    engine: EngineProcess, headers: dict[str, str], taken: bool
) -> None:
    origin = {"Origin": f"http://{headers['Host']}"} if "Host" in headers else {}
    reply = post(engine, f"{HOME}sign-in", KEY, **headers, **origin)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    shown = visit(engine, f"{HOME}sign-in?with=key", **named)

    assert reply.status == (303 if taken else 401)
    assert ("only over HTTPS" in reply.body.decode()) is not taken
    assert ("Secret key" in shown.text.replace("A secret key", "")) is taken


def test_large_and_foreign_bodies_are_refused(engine: EngineProcess) -> None:
    large = post(engine, f"{HOME}sign-in", {"token": "x" * 200_000})
    other = engine.ask("POST", f"{HOME}sign-in", {"kind": "token", "token": TOKEN})

    assert (large.status, other.status) == (413, 400)


def test_an_engine_without_credentials_has_no_sign_in(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("mine", "def handler(event, context):\n    return event\n")
        page = visit(engine, f"{MINE}/mine")
        fields = {"form_token": page.form_token, "reason": ""}
        statuses = [
            engine.ask("GET", f"{HOME}sign-in").status,
            post(engine, f"{HOME}sign-in", WRONG).status,
            post(engine, f"{MINE}/mine/pause", fields).status,
            post(engine, f"{MINE}/mine/pause", fields, Sec_Fetch_Site="cross-site").status,
            post(engine, f"{MINE}/mine/pause", fields, Origin="http://127.0.0.1:1").status,
        ]
        assert engine.ask("GET", f"/v2/{PROJECT}/fgs/functions/{urn_of('mine')}/controls").json["paused"] is True
        engine.stop()
        engine.start()
        after = post(engine, f"{MINE}/mine/resume", fields).status  # a form from before the restart
        foreign = visit(engine, MINE, Host="evil.example")

    assert statuses == [303, 303, 303, 403, 403]
    assert after == 303
    assert (foreign.reply.status, foreign.links("projects/")) == (403, [])
    assert "Sign out" not in page.text
