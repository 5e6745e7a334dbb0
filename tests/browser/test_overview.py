"""Overview of the console, and the tab Monitoring of a function, in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, to, urn_of

HOSTILE = "<script>alert(1)</script> \u202eesrever " + "long" * 50
NOWHERE = to("SMN", topic_urn=f"urn:smn:local-1:{PROJECT}:gone")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with a failing, a paused, and a working function, after some invocations."""
    with engine_on(tmp_path_factory.mktemp("overview") / "data") as engine:
        engine.create("good", "def handler(event, context):\n    return event\n")
        engine.create("bad", "def handler(event, context):\n    raise OSError('no connection')\n")
        engine.create("paused", "def handler(event, context):\n    return event\n")
        engine.configure("bad", max_async_retry_attempts=0, destination_config={"on_failure": NOWHERE})
        assert engine.ask("POST", f"{BASE}/{urn_of('paused')}/pause", {"reason": HOSTILE}).status == 200
        engine.accepted("paused")
        ids = [(name, engine.accepted(name)) for name in ("good", "good", "bad")]
        assert [engine.record(*pair, wait=30)["status"] for pair in ids] == ["SUCCESS", "SUCCESS", "FAIL"]
        assert engine.ask("POST", f"{BASE}/{urn_of('bad')}/invocations", {}).status == 200
        yield engine


def concern(page: Page, title: str) -> Locator:
    return page.locator(".concerns li").filter(has=page.get_by_text(title, exact=True))


def test_what_needs_attention_links_to_where_it_is_handled(page: Page) -> None:
    page.goto("/console/")
    expect(concern(page, "bad fails")).to_contain_text("2 of 2 attempts in the last 15 minutes failed")
    expect(concern(page, "SMN destination of bad fails")).to_contain_text("SMN.0006")
    expect(concern(page, "paused is paused")).to_contain_text("1 invocations wait")
    expect(concern(page, "paused is paused")).to_contain_text("<script>alert(1)</script>")

    concern(page, "paused is paused").get_by_role("link").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.go_back()
    concern(page, "SMN destination of bad fails").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Deliveries")


def test_tiles_link_to_their_pages(engine: EngineProcess, page: Page) -> None:
    page.goto("/console/")
    paths = page.locator(".tile.linked a").evaluate_all("all => all.map((one) => one.getAttribute('href'))")

    assert len(paths) >= 12
    for path in {path.partition("#")[0] for path in paths}:
        assert engine.ask("GET", path, headers={"Accept": "text/html"}).status == 200, path


def test_charts_show_the_last_minutes_and_follow(engine: EngineProcess, page: Page) -> None:
    page.goto("/console/")
    accepted = page.locator("#chart-accepted")
    expect(accepted).to_contain_text("4 asynchronous requests")
    expect(accepted.locator(".slot")).to_have_count(15)
    page.get_by_text("Show the figures as a table").click()

    engine.accepted("good")

    expect(accepted).to_contain_text("5 asynchronous requests")
    expect(page.get_by_role("region", name="Figures of the charts")).to_be_visible()
    titles = accepted.locator(".slot title").all_text_contents()
    assert sum(int(title.split(": ")[1].split()[0]) for title in titles if "asynchronous" in title) == 5
    expect(page.locator("#chart-ended")).to_contain_text("1 failed")

    page.get_by_role("link", name="24 hours").click()
    expect(page.get_by_role("heading", name="Last 24 hours")).to_be_visible()
    expect(accepted).to_contain_text("5 asynchronous requests")
    expect(accepted.locator(".slot")).to_have_count(96)


def test_the_tab_monitoring_shows_one_function(page: Page) -> None:
    page.goto("/console/")
    concern(page, "bad fails").get_by_role("link").click()

    expect(page.get_by_role("link", name="Monitoring")).to_have_attribute("aria-current", "page")
    expect(page.locator("#chart-attempts")).to_contain_text("2 ended, 2 failed")
    expect(page.locator("#chart-durations")).to_contain_text("on average")
    expect(page.locator("tr", has_text="API")).to_contain_text("FAIL 2")
    for name, title, slots in (("1 hour", "Last hour", 60), ("24 hours", "Last 24 hours", 60)):
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name=title)).to_be_visible()
        expect(page.locator("#chart-attempts .slot")).to_have_count(slots)
    expect(page.locator("#chart-attempts")).to_contain_text("2 ended, 2 failed")


def test_a_range_that_does_not_exist_says_which_do(engine: EngineProcess) -> None:
    reply = engine.ask("GET", "/console/?range=year", headers={"Accept": "text/html"})

    assert reply.status == 400
    assert b"15min, 1h, 24h" in reply.body
