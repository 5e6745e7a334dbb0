"""Live pages of the console in a browser: they follow changes by events, also over a restart of the engine."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from time import monotonic, sleep

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect

from engine.http.console.pages import COOKIE
from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on

HERE = f"/console/projects/{PROJECT}"
LIST = f"{HERE}/invocations"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("live") / "data") as engine:
        engine.asked_port = engine.port
        engine.create("hello", "def handler(event, context):\n    print(event)\n    return event\n")
        yield engine


@pytest.fixture
def paths(page: Page) -> list[str]:
    """Paths that the page requests."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/console")[2]))
    return asked


def leave_note(engine: EngineProcess, page: Page) -> None:
    """Have the next page show the note that a form has left."""
    note = base64.urlsafe_b64encode(b"Saved.").decode()
    page.context.add_cookies([{"name": COOKIE, "value": note, "url": f"{engine.url}/console/"}])


def fetched(request: Request) -> bool:
    """Return whether a script asks for a page."""
    return request.resource_type == "fetch"


def hold_updates(page: Page) -> list[Route]:
    """Hold back what scripts ask for lists of invocations, and return the list of it."""
    held: list[Route] = []
    page.route("**/invocations", lambda route: held.append(route) if fetched(route.request) else route.continue_())
    return held


def test_a_change_is_shown_in_two_windows_without_a_reload(
    engine: EngineProcess, context: BrowserContext, page: Page, paths: list[str]
) -> None:
    other = context.new_page()
    for window in (page, other):
        with window.expect_request("**/console/events"):
            window.goto(LIST)
    page.get_by_label("Function").fill("typed")
    page.evaluate("window.kept = document.querySelector('h1')")

    done = engine.accepted("hello")

    for window in (page, other):
        expect(window.get_by_role("link", name=done)).to_be_visible()
    expect(page.locator("tr", has_text=done)).to_contain_text("SUCCESS")
    assert page.get_by_label("Function").input_value() == "typed"
    assert page.evaluate("window.kept.isConnected")
    other.close()


def test_a_page_that_is_paused_asks_for_nothing(engine: EngineProcess, page: Page, paths: list[str]) -> None:
    page.goto(LIST)
    page.get_by_role("button", name="live").click()
    page.wait_for_timeout(300)
    paths.clear()
    done = engine.accepted("hello")
    engine.record("hello", done, wait=10)
    page.wait_for_timeout(700)

    assert paths == []
    page.get_by_role("button", name="paused").click()
    expect(page.get_by_role("link", name=done)).to_be_visible()


def test_a_page_that_is_paused_while_it_is_fetched_stays_paused(engine: EngineProcess, page: Page) -> None:
    held = hold_updates(page)
    with page.expect_request(fetched):
        page.goto(LIST)
    page.get_by_role("button", name="live").click()
    with page.expect_event("requestfinished", lambda request: fetched(request)):
        held[0].continue_()
    page.wait_for_timeout(200)  # the page takes the reply

    expect(page.get_by_role("button", name="paused")).to_be_visible()


def test_changes_are_joined(engine: EngineProcess, page: Page, paths: list[str]) -> None:
    page.goto(LIST)
    page.wait_for_timeout(300)
    paths.clear()
    began = monotonic()
    with page.expect_request(fetched):
        for _ in range(40):
            engine.accepted("hello")
    page.wait_for_timeout(1500)

    assert len(paths) <= monotonic() - began + 3  # one a second


def test_what_is_opened_and_selected_stays_also_below_a_note(engine: EngineProcess, page: Page) -> None:
    held = hold_updates(page)
    leave_note(engine, page)
    with page.expect_request(fetched):
        page.goto(f"{HERE}/functions/hello/invocations")
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").fill("half a rea")
    with page.expect_event("requestfinished", fetched):
        held[0].continue_()
    page.wait_for_timeout(300)  # the page takes the reply

    assert page.get_by_label("Reason").input_value() == "half a rea"
    assert page.get_by_label("Reason").evaluate("one => one === document.activeElement")


def test_without_events_a_page_is_fetched_at_intervals(engine: EngineProcess, page: Page) -> None:
    page.route("**/console/events", lambda route: route.fulfill(status=404, body=""))
    page.goto(LIST)
    done = engine.accepted("hello")

    expect(page.get_by_role("link", name=done)).to_be_visible()


def test_a_fetch_that_took_long_delays_the_next_by_five_seconds_at_most(engine: EngineProcess, page: Page) -> None:
    page.clock.install()
    with page.expect_event("requestfinished", fetched):  # the stream begins with a fetch
        page.goto(LIST)

    def take_long(route: Route) -> None:
        page.clock.fast_forward(7000)
        route.continue_()

    page.route("**" + LIST, take_long, times=1)
    with page.expect_response("**" + LIST):
        engine.accepted("hello")
    done = engine.accepted("hello")
    page.wait_for_timeout(1500)  # until events tell of it
    page.clock.run_for(5500)

    expect(page.get_by_role("link", name=done)).to_be_visible(timeout=15_000)  # not after four times seven seconds


def test_a_page_follows_the_engine_over_a_restart(engine: EngineProcess, browser: Browser) -> None:
    with closing(browser.new_context(base_url=engine.url)) as context:
        page = context.new_page()  # its console has the errors of requests while the engine is down
        page.goto(LIST)
        expect(page.get_by_role("button", name="live")).to_be_visible()
        engine.stop()
        expect(page.get_by_role("button", name="no reply")).to_be_visible()
        engine.start()
        done = engine.accepted("hello")

        expect(page.get_by_role("link", name=done)).to_be_visible()
        expect(page.get_by_role("button", name="live")).to_be_visible()


@pytest.mark.parametrize("path", [LIST, f"{HERE}/functions/hello/logs"])
def test_the_seventh_window_works(engine: EngineProcess, context: BrowserContext, path: str) -> None:
    pages = [context.new_page() for _ in range(7)]
    for window in pages:
        window.goto(path)
        window.wait_for_timeout(150)  # its stream is open
    done = engine.accepted("hello", {"said": "hi"})

    for window in (pages[0], pages[-1]):
        expect(window.get_by_role("link", name=done[:13]).first).to_be_visible()


def test_a_deleted_thing_is_called_deleted(engine: EngineProcess, page: Page, paths: list[str]) -> None:
    engine.create("brief", "def handler(event, context):\n    return event\n")
    page.goto(f"{HERE}/functions/brief/invocations")
    expect(page.get_by_role("button", name="live")).to_be_visible()

    def take_long(route: Route) -> None:
        sleep(0.5)
        route.continue_()

    page.route("**/brief/invocations", take_long)
    engine.delete("brief")

    expect(page.get_by_role("button", name="deleted")).to_be_visible()
    paths.clear()
    engine.accepted("hello")  # told before the page may be fetched again
    page.wait_for_timeout(2500)
    assert paths == []


def test_scripts_that_fetch_pages_take_no_note(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions")
    leave_note(engine, page)

    fetched = page.evaluate("fetch(location.href).then((reply) => reply.text())")
    page.goto(f"{HERE}/functions")

    assert "Saved." not in fetched
    expect(page.get_by_role("status")).to_contain_text("Saved.")
