"""Deliveries in a browser, with a destination that fails and recovers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on, urn_of
from tests.browser.axe import overflow, violations

pytestmark = pytest.mark.slow  # run on one Python version only; none differs here

HERE = f"/console/projects/{PROJECT}/deliveries"
FGS = f"/v2/{PROJECT}/fgs"
HOSTILE = '<script>alert("1")</script>'


class Hook:
    """Receiver of outcomes on loopback. Answers 503 until ``recovered``."""

    def __init__(self) -> None:
        self.recovered = False
        self.received: list[bytes] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.recovered:
                    hook.received.append(body)
                self.send_response(204 if hook.recovered else 503)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{HOSTILE}?token=of-the-hook"


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    hook = Hook()
    Thread(target=hook.server.serve_forever, daemon=True).start()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, hook: Hook) -> Iterator[EngineProcess]:
    """Run an engine with six given-up deliveries of two functions, and three that wait for a failing destination."""
    with engine_on(tmp_path_factory.mktemp("browser") / "data", FUNCTIOND_RETRY__BASE="100") as engine:
        nobody = {"destination": "FunctionGraph", "param": json.dumps({"func_urn": urn_of("nobody")})}
        failing = {"destination": "WEBHOOK", "param": json.dumps({"url": hook.url})}
        topic = {"destination": "SMN", "param": json.dumps({"topic_urn": "urn:smn:local-1:project1:calm"})}
        for name, target, count in (
            ("lost", nobody, 4),
            ("lost-too", nobody, 2),
            ("hooked", failing, 3),
            ("calm", topic, 0),
        ):
            engine.create(name, "def handler(event, context):\n    return event\n")
            engine.configure(name, destination_config={"on_failure" if name == "calm" else "on_success": target})
            for _ in range(count):
                engine.record(name, engine.accepted(name), wait=30)
        wait_for(lambda: given_up(engine) == 6 and engine.metric("functiond_delivery_failures_total") >= 8)
        yield engine


def given_up(engine: EngineProcess, name: str = "") -> int:
    """Return the number of given-up deliveries, of one function if it is named."""
    found = engine.ask("GET", f"{FGS}/deliveries").json["deliveries"]
    return len([one for one in found if not name or one["func_urn"] == urn_of(name).removesuffix(":latest")])


def wait_for(holds: Any) -> None:
    end = monotonic() + 20
    while not holds():
        assert monotonic() < end
        sleep(0.02)


def test_the_page_shows_what_fails_by_destination(page: Page, hook: Hook) -> None:
    page.goto(HERE)
    paused = page.get_by_role("row", name="WEBHOOK").first

    expect(paused).to_contain_text("paused")
    expect(paused).to_contain_text("503")
    expect(paused).to_contain_text(hook.url)
    expect(page.get_by_role("heading", name="Given up")).to_contain_text("6")
    expect(page.get_by_role("heading", name="Waiting and retried")).to_contain_text("3")
    expect(page.get_by_role("region", name="Destinations")).not_to_contain_text("urn:smn")
    assert list(violations(page)) == []
    assert overflow(page) == 0

    page.get_by_role("link", name="Show 1 destination without problems").click()
    expect(page.get_by_role("main")).to_contain_text("urn:smn")

    page.get_by_role("row", name="FunctionGraph").first.get_by_role("link", name="FunctionGraph").click()
    expect(page.get_by_role("heading", name="Waiting and retried")).to_contain_text("0")
    page.get_by_label("Function", exact=True).fill("lost-too")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", name="Given up")).to_contain_text("2")


def test_a_page_of_many_goes_on_by_a_link(page: Page) -> None:
    page.goto(f"{HERE}?function=lost&limit=3")
    expect(page.get_by_role("checkbox", name="Select delivery")).to_have_count(3)
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("checkbox", name="Select delivery")).to_have_count(1)
    page.get_by_role("link", name="First").click()
    expect(page.get_by_role("checkbox", name="Select delivery")).to_have_count(3)


def test_one_and_several_are_discarded(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}?function=lost-too")
    page.get_by_role("button", name="Send selected again").click()
    expect(page.get_by_role("alert")).to_contain_text("Select deliveries first")

    page.get_by_role("button", name="Discard delivery").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert given_up(engine, "lost-too") == 2

    page.get_by_role("button", name="Discard delivery").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status")).to_contain_text("1 delivery discarded")
    page.get_by_label("Select all on this page").first.check()
    page.get_by_role("button", name="Discard selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard selected").click()

    expect(page.get_by_role("status")).to_contain_text("1 delivery discarded")
    expect(page.get_by_role("main")).to_contain_text("No deliveries were given up")
    assert given_up(engine, "lost-too") == 0


def test_all_that_were_given_up_are_sent_again_after_a_question(engine: EngineProcess, page: Page) -> None:
    engine.create("nobody", "def handler(event, context):\n    return event\n")
    page.goto(f"{HERE}?function=lost")
    page.get_by_label("Select delivery").first.check()
    page.get_by_role("button", name="Send selected again").click()
    expect(page.get_by_role("status")).to_contain_text("1 delivery sent again")

    page.get_by_role("link", name="Send all again").click()
    expect(page.get_by_role("main")).to_contain_text("3 given-up deliveries of the function lost")
    page.get_by_role("button", name="Send 3 again").click()

    expect(page.get_by_role("main")).to_contain_text("3 deliveries sent again")
    wait_for(lambda: given_up(engine, "lost") == 0)


def test_what_waits_is_delivered_when_its_destination_recovers(engine: EngineProcess, hook: Hook, page: Page) -> None:
    page.goto(f"{HERE}?function=hooked")
    hook.recovered = True
    page.get_by_role("button", name="Try delivery").first.click()

    expect(page.get_by_role("status")).to_contain_text("1 delivery sent again")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Try selected now").click()
    wait_for(lambda: len(hook.received) >= 3)
    expect(page.get_by_role("main")).to_contain_text("No pending deliveries", timeout=10_000)
    expect(page.get_by_role("main")).to_contain_text("No destination fails, and nothing waits")


def test_steps_go_on_without_scripts(engine: EngineProcess, browser: Browser) -> None:
    target = {"destination": "FunctionGraph", "param": json.dumps({"func_urn": urn_of("never")})}
    engine.create("stuck", "def handler(event, context):\n    return event\n")
    engine.configure("stuck", destination_config={"on_success": target})
    for _ in range(2):
        engine.record("stuck", engine.accepted("stuck"), wait=30)
    wait_for(lambda: given_up(engine, "stuck") == 2)
    context = browser.new_context(base_url=f"http://127.0.0.1:{engine.port}", java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{HERE}?function=stuck")
    page.get_by_role("link", name="Discard all").click()
    page.get_by_role("button", name="Discard 2").click()

    expect(page.get_by_role("status")).to_contain_text("2 deliveries discarded")
    assert given_up(engine, "stuck") == 0
    context.close()
