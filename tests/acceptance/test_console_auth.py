"""Console of an engine with credentials. A token is the password and gives access to its own project."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.browsing import Page, visit
from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on
from tests.acceptance.two_keys import OTHERS_TOKEN, TOKEN, key_file

pytestmark = pytest.mark.slow  # run on one Python version only; none differs here

HOME = "/console/"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("console_auth")
    with engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(key_file(folder))) as engine:
        engine.headers["X-Auth-Token"] = TOKEN
        engine.create("mine", "def handler(event, context):\n    return event\n")
        engine.headers.clear()
        yield engine


def basic(password: str, name: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def signed_in(engine: EngineProcess, path: str, password: str = TOKEN) -> Page:
    return visit(engine, path, Authorization=basic(password))


def test_a_browser_is_asked_for_a_token(engine: EngineProcess) -> None:
    page = visit(engine, HOME)

    assert page.reply.status == 401
    assert page.reply.headers["www-authenticate"].startswith('Basic realm="functiond"')
    assert "Sign in with one of the engine's tokens as the password" in page.text


def test_what_a_browser_needs_to_ask_is_open(engine: EngineProcess) -> None:
    paths = ("/", "/console/static/console.css", "/console/static/icon.svg")
    statuses = [engine.ask("GET", path, headers={"Accept": "text/html"}).status for path in paths]

    assert statuses == [307, 200, 200]


def test_a_token_shows_its_own_project_only(engine: EngineProcess) -> None:
    mine, others = f"{HOME}projects/{PROJECT}/functions", f"{HOME}projects/another/functions"
    own, refused = signed_in(engine, mine), signed_in(engine, others)
    another = signed_in(engine, HOME, OTHERS_TOKEN)

    assert own.column("Function") == ["mine"]
    assert (refused.reply.status, f"for project {PROJECT} only" in refused.text) == (403, True)
    assert (another.links(others), another.links(mine)) == ([others], [])


@pytest.mark.parametrize("wrong", [basic("a-token-of-nobody"), basic(""), "Basic %%%", "Basic", "Bearer " + TOKEN])
def test_nothing_else_opens_it(engine: EngineProcess, wrong: str) -> None:
    page = visit(engine, HOME, Authorization=wrong)

    assert page.reply.status == 401
    assert TOKEN not in page.reply.body.decode()


def test_the_console_is_shown_through_a_proxy_on_this_machine(engine: EngineProcess) -> None:
    page = visit(engine, HOME, Authorization=basic(TOKEN), Host="console.example.com")

    assert page.reply.status == 200


def test_the_api_takes_no_password(engine: EngineProcess) -> None:
    reply = engine.ask("GET", f"/v2/{PROJECT}/fgs/functions", headers={"Authorization": basic(TOKEN)})

    assert (reply.status, reply.headers["www-authenticate"]) == (401, "SDK-HMAC-SHA256")


def test_the_right_password_passes_whatever_was_guessed_before(tmp_path: Path) -> None:
    settings = {"FUNCTIOND_AUTH__FILE": str(key_file(tmp_path)), "FUNCTIOND_AUTH__FAILURES": "3"}
    with engine_on(tmp_path / "data", **settings) as engine:
        unasked = [visit(engine, HOME).reply.status for _ in range(4)]
        guesses = [signed_in(engine, HOME, f"a-guess-number-{n}-of-many").reply.status for n in range(5)]
        late = signed_in(engine, HOME)

    assert unasked == [401] * 4  # requests without a token are not counted as guesses
    assert guesses == [401] * 5
    assert late.reply.status == 200
