"""Deliveries in a browser, with a destination that fails and recovers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on, to, until, urn_of
from tests.browser.axe import violations
from tests.support.webhooks import WebhookReceiver, webhook_receiver

HERE = f"/console/projects/{PROJECT}/deliveries"
FGS = f"/v2/{PROJECT}/fgs"
HOSTILE = '<script>alert("1")</script>'


def listening() -> Iterator[WebhookReceiver]:
    """Receive webhooks, and refuse them. After 410, outcomes are given up."""
    with webhook_receiver(status=503) as hook:
        hook.url += f"{HOSTILE}?token=of-the-hook"
        yield hook


hook = pytest.fixture(scope="module")(listening)
gone = pytest.fixture(scope="module")(listening)
own_hook = pytest.fixture(listening)


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, hook: WebhookReceiver, gone: WebhookReceiver
) -> Iterator[EngineProcess]:
    """Run an engine with six given-up deliveries of two functions, and three that wait for a failing destination."""
    with engine_on(tmp_path_factory.mktemp("browser") / "data", FUNCTIOND_RETRY__BASE="100") as engine:
        gone.status = 410
        send(engine, "lost", to("WEBHOOK", url=gone.url), 4)
        send(engine, "lost-too", to("WEBHOOK", url=gone.url), 2)
        send(engine, "hooked", to("WEBHOOK", url=hook.url), 3)
        send(engine, "calm", to("SMN", topic_urn="urn:smn:local-1:project1:calm"), 0)
        until(lambda: given_up(engine) == 6 and engine.metric("functiond_delivery_failures_total") >= 8)
        yield engine


@pytest.fixture
def own(engine: EngineProcess) -> Iterator[str]:
    """Name a function that a test creates. The function is deleted afterwards."""
    yield "own"
    engine.delete("own")


def send(engine: EngineProcess, name: str, destination: dict[str, str], count: int) -> None:
    """Create a function, and have it send outcomes of ``count`` invocations to a destination."""
    engine.create(name, "def handler(event, context):\n    return event\n")
    engine.configure(name, destination_config={"on_success": destination})
    for _ in range(count):
        engine.record(name, engine.accepted(name), wait=30)


def lose(engine: EngineProcess, name: str, hook: WebhookReceiver) -> None:
    """Create a function with three given-up deliveries."""
    send(engine, name, to("WEBHOOK", url=hook.url), 3)
    until(lambda: given_up(engine, name) == 3)


def given_up(engine: EngineProcess, name: str = "") -> int:
    """Return the number of given-up deliveries, of one function if it is named."""
    deliveries = engine.ask("GET", f"{FGS}/deliveries").json["deliveries"]
    return len(
        [
            delivery
            for delivery in deliveries
            if not name or delivery["func_urn"] == urn_of(name).removesuffix(":latest")
        ]
    )


def shown(page: Page, name: str) -> str:
    page.goto(f"{HERE}?function={name}")
    return page.get_by_role("main").inner_text()


def accepted(hook: WebhookReceiver) -> int:
    return [request.status for request in hook.requests].count(204)


def test_the_page_shows_what_fails_by_destination(page: Page, hook: WebhookReceiver, gone: WebhookReceiver) -> None:
    page.goto(HERE)
    paused = page.get_by_role("row", name=f":{hook.server.server_port}/").first

    expect(paused).to_contain_text("paused")
    expect(paused).to_contain_text("503")
    expect(paused).to_contain_text(hook.url)
    expect(page.get_by_role("heading", name="Given up")).to_contain_text("6")
    expect(page.get_by_role("heading", name="Waiting and retried")).to_contain_text("3")
    expect(page.get_by_role("region", name="Destinations")).not_to_contain_text("urn:smn")
    assert violations(page) == []

    page.get_by_role("link", name="Show 1 destination without problems").click()
    expect(page.get_by_role("main")).to_contain_text("urn:smn")

    page.get_by_role("row", name=f":{gone.server.server_port}/").first.get_by_role("link", name="WEBHOOK").click()
    expect(page.get_by_role("heading", name="Waiting and retried")).to_contain_text("0")
    page.get_by_label("Function", exact=True).fill("lost-too")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", name="Given up")).to_contain_text("2")


def test_a_page_of_many_goes_on_by_a_link(page: Page) -> None:
    page.goto(f"{HERE}?function=lost&limit=3")
    for link, shown in (("Next", 3), ("First", 1), ("", 3)):
        expect(page.get_by_role("checkbox", name="Select delivery")).to_have_count(shown)
        if link:
            page.get_by_role("link", name=link).click()


def test_one_and_several_are_discarded(engine: EngineProcess, gone: WebhookReceiver, page: Page, own: str) -> None:
    lose(engine, own, gone)
    page.goto(f"{HERE}?function={own}")
    page.get_by_role("button", name="Send selected again").click()
    expect(page.get_by_role("alert")).to_contain_text("Select deliveries first")

    page.get_by_role("button", name="Discard delivery").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert given_up(engine, own) == 3

    page.get_by_role("button", name="Discard delivery").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status")).to_contain_text("1 delivery discarded")
    page.get_by_label("Select all on this page").first.check()
    page.get_by_role("button", name="Discard selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard selected").click()

    expect(page.get_by_role("status")).to_contain_text("2 deliveries discarded")
    expect(page.get_by_role("main")).to_contain_text("No deliveries were given up")
    assert given_up(engine, own) == 0


def test_a_box_for_all_selects_them_before_the_other_scripts_have_arrived(page: Page) -> None:
    page.route(re.compile(r"/(?!forms|selection)\w+\.js$"), lambda route: None)  # never arrive
    page.goto(f"{HERE}?function=lost", wait_until="commit")
    boxes = page.get_by_role("checkbox", name="Select delivery")
    expect(boxes).to_have_count(4)
    page.get_by_label("Select all on this page").check()

    for box in boxes.all():
        expect(box).to_be_checked()


def test_all_that_were_given_up_are_sent_again_after_a_question(
    engine: EngineProcess, own_hook: WebhookReceiver, page: Page, own: str
) -> None:
    own_hook.status = 410
    lose(engine, own, own_hook)
    own_hook.status = 204
    page.goto(f"{HERE}?function={own}")
    page.get_by_label("Select delivery").first.check()
    page.get_by_role("button", name="Send selected again").click()
    expect(page.get_by_role("status")).to_contain_text("1 delivery sent again")

    page.get_by_role("link", name="Send all again").click()
    expect(page.get_by_role("main")).to_contain_text(f"2 given-up deliveries of the function {own}")
    page.get_by_role("button", name="Send 2 again").click()

    expect(page.get_by_role("main")).to_contain_text("2 deliveries sent again")
    until(lambda: accepted(own_hook) == 3)
    assert given_up(engine, own) == 0


def test_what_waits_is_delivered_when_its_destination_recovers(
    engine: EngineProcess, own_hook: WebhookReceiver, page: Page, own: str
) -> None:
    send(engine, own, to("WEBHOOK", url=own_hook.url), 3)
    until(lambda: len(own_hook.requests) >= 2)
    page.goto(f"{HERE}?function={own}")
    own_hook.status = 204
    page.get_by_role("button", name="Try delivery").first.click()

    expect(page.get_by_role("status")).to_contain_text("1 delivery sent again")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Try selected now").click()
    until(lambda: accepted(own_hook) >= 3)
    until(lambda: "No pending deliveries" in shown(page, own))  # the last ones may have been sent without the button
    expect(page.get_by_role("main")).to_contain_text("No destination fails, and nothing waits")


def test_steps_go_on_without_scripts(engine: EngineProcess, gone: WebhookReceiver, plain_page: Page, own: str) -> None:
    lose(engine, own, gone)
    plain_page.goto(f"{HERE}?function={own}")
    plain_page.get_by_role("link", name="Discard all").click()
    plain_page.get_by_role("button", name="Discard 3").click()

    expect(plain_page.get_by_role("status")).to_contain_text("3 deliveries discarded")
    assert given_up(engine, own) == 0
