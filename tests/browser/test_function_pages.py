"""Pages of one function in a browser."""

from __future__ import annotations

import base64

import pytest
from playwright.sync_api import Page, expect

from engine.http.console.pages import COOKIE
from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of

HERE = f"/console/projects/{PROJECT}"


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    engine.create("hello", "def handler(event, context):\n    return event\n")


def controls(engine: EngineProcess) -> dict[str, object]:
    found: dict[str, object] = engine.ask("GET", f"/v2/{PROJECT}/fgs/functions/{urn_of('hello')}/controls").json
    return found


def test_an_error_of_an_action_says_so(page: Page) -> None:
    page.goto(f"{HERE}/functions/hello")
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").evaluate("(field) => field.removeAttribute('maxlength')")
    page.get_by_label("Reason").fill("x" * 2000)
    page.get_by_role("button", name="Pause").click()

    expect(page.locator("#f-reason-error")).to_be_visible()


def test_scripts_that_fetch_pages_take_no_note(page: Page) -> None:
    page.goto(f"{HERE}/functions")
    note = base64.urlsafe_b64encode(b"Saved.").decode()
    page.context.add_cookies([{"name": COOKIE, "value": note, "url": page.url.partition("projects")[0]}])

    fetched = page.evaluate("fetch(location.href).then((reply) => reply.text())")
    page.goto(f"{HERE}/functions")

    assert "Saved." not in fetched
    expect(page.get_by_role("status")).to_contain_text("Saved.")
