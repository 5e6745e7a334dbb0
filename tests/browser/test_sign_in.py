"""Signing in and out in a browser: credentials, roles, the ends of a session, and pages of other sites."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, Route, expect

from tests.acceptance.engine_process import PROJECT, ClockedEngine, until
from tests.browser.axe import violations
from tests.support.credentials import credentials_file, key, token

HERE = f"/console/projects/{PROJECT}"
ADMIN, READ, INVOKE = "a-token-with-the-role-admin", "a-token-with-the-role-read", "a-token-with-the-role-invoke"
BRIEF = "a-token-that-is-removed-with-the-role-admin"
TEMPORARY, SECRET, SECURITY = "AK" + "9" * 60, "the-secret-of-an-access-key", "the-token-of-a-temporary-key"
EVIL = "http://evil.example"


class Engine(ClockedEngine):
    """Engine with credentials, and a clock that can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(folder / "data", **self.write(ADMIN, READ, INVOKE))

    def write(self, *tokens: str) -> dict[str, str]:
        """Write the credentials file, with these tokens. Return the setting that names it."""
        tables = (token(secret, PROJECT, role=secret.split("-")[-1]) for secret in tokens)
        return credentials_file(self.folder, *tables, key(TEMPORARY, SECRET, PROJECT, token=SECURITY))

    def reload(self) -> None:
        """Load the credentials file, and return when that is done."""
        count = len([line for line in self.log if "credentials replaced" in line])
        self.signal(signal.SIGHUP)
        until(lambda: len([line for line in self.log if "credentials replaced" in line]) > count)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with closing(Engine(tmp_path_factory.mktemp("sign_in"))) as engine:
        engine.start()
        engine.headers["X-Auth-Token"] = ADMIN
        engine.create("hello", "def handler(event, context):\n    return event\n")
        engine.headers.clear()
        yield engine


def sign_in(page: Page, token: str = ADMIN) -> None:
    page.get_by_label("Token", exact=True).fill(token)
    with page.expect_event("load"):
        page.get_by_role("button", name="Sign in").click()


def account(page: Page) -> str:
    """Open the menu of the reader, and return its text."""
    page.locator(".account summary").click()
    return page.locator(".account .panel").inner_text()


def test_a_token_opens_the_page_that_was_asked_for(page: Page) -> None:
    asked = f"{HERE}/functions?a=%22%3E%3Cb%3E"
    page.goto(asked)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, "<script>a-token-of-nobody</script>")
    expect(page.get_by_text("This is no token of this engine.")).to_be_visible()
    expect(page.get_by_label("Token", exact=True)).to_have_value("")

    sign_in(page)

    assert page.url.endswith(asked)
    expect(page.get_by_role("link", name="hello", exact=True)).to_be_visible()
    assert re.search(r"token [0-9a-f]{12}\s+Role\s+admin\s+Project\s+project1", account(page))
    page.goto("/console/nothing-here")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Functions")).to_be_visible()
    account(page)
    assert violations(page) == []


def test_an_access_key_signs_in_and_out(page: Page) -> None:
    page.goto("/console/")
    page.get_by_role("link", name="Access key").click()
    page.get_by_label("Access key").fill(TEMPORARY)
    page.get_by_label("Secret key").fill(SECRET)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("the secret key or the security token is wrong")
    expect(page.get_by_label("Access key")).to_have_value(TEMPORARY)
    assert violations(page) == []
    page.get_by_label("Secret key").fill(SECRET)
    page.get_by_label("Security token").fill(SECURITY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert TEMPORARY in account(page)
    page.goto("/console/sign-in")  # a reader who has signed in is led on
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    account(page)

    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("status")).to_contain_text("You are signed out.")
    page.go_back()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_pages_of_other_sites_may_link_and_not_act(page: Page, engine: Engine) -> None:
    target = f"{engine.url}{HERE}/functions/hello"

    def show(route: Route) -> None:
        body = f'<a href="{target}">link</a><form method="post" action="{target}/pause"><button>send</button></form>'
        route.fulfill(body=body, content_type="text/html")

    page.route(f"{EVIL}/**", show)
    page.goto(f"{HERE}/functions/hello")
    sign_in(page)

    page.goto(EVIL)
    page.get_by_role("link", name="link").click()  # without the cookie, which the browser then sends
    expect(page.get_by_role("heading", name="hello")).to_be_visible()
    page.goto(EVIL)
    page.get_by_role("button", name="send").click()
    expect(page.get_by_role("heading", name="Access denied")).to_be_visible()
    expect(page.get_by_role("navigation")).to_have_count(0)
    page.goto(f"{HERE}/functions/hello")
    expect(page.get_by_text("Pause…")).to_be_visible()

    page.context.clear_cookies()
    page.goto(EVIL)
    page.get_by_role("link", name="link").click()
    sign_in(page)
    expect(page.get_by_role("heading", name="hello")).to_be_visible()


def test_a_session_ends_with_its_credential_and_with_time(context: BrowserContext, page: Page, engine: Engine) -> None:
    here = f"{engine.url}{HERE}"
    engine.write(ADMIN, READ, INVOKE, BRIEF)
    engine.reload()
    page.goto(f"{here}/functions/hello")
    sign_in(page, BRIEF)
    engine.write(ADMIN, READ, INVOKE)
    engine.reload()
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").fill("too late")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Your text stays here.")).to_be_visible()
    assert page.get_by_label("Reason").input_value() == "too late"
    page.reload()
    sign_in(page, READ)
    expect(page.get_by_role("heading", name="hello")).to_be_visible()  # the page of the form
    page.goto(f"{here}/functions")
    engine.set_clock(12 * 3600 + 60)
    page.get_by_role("button", name="sign in again").click()  # a page that updates itself notices the end
    expect(page.get_by_text("Your session has ended.")).to_be_visible()
    engine.set_clock(0)


@pytest.mark.parametrize(
    ("path", "field", "text", "button"),
    [
        ("", "textarea[name=code]", "def handler(event, context):\n    return 'kept'\n", "Save"),
        ("/configuration/environment", "[name=key]", "KEPT", "Save"),
        ("/test", "[name=event]", '{"kept": true}', "Run"),
    ],
)
def test_text_that_is_sent_after_the_session_ended_is_kept_over_signing_in(
    context: BrowserContext, page: Page, path: str, field: str, text: str, button: str
) -> None:
    page.goto(f"{HERE}/functions/hello{path}")
    sign_in(page)
    typed = page.locator(field).first
    typed.fill(text)
    context.clear_cookies()
    page.get_by_role("button", name=button, exact=True).first.click()
    note = page.get_by_role("alert")
    expect(note).to_contain_text("Your text stays here")
    expect(typed).to_have_value(text)
    assert violations(page) == []
    with context.expect_page() as opened:
        note.get_by_role("link", name="Sign in in a new tab").click()
    sign_in(opened.value)
    opened.value.wait_for_url(re.compile("console/$"))
    opened.value.close()
    page.get_by_role("button", name=button, exact=True).first.click()

    if path == "/test":
        expect(page.get_by_role("region", name="succeeded")).to_contain_text("kept")
    else:
        expect(page.get_by_role("status")).to_contain_text("Saved.")
        expect(page.locator(field).first).to_have_value(text)


def test_text_is_kept_over_signing_in_after_it_was_refused_once(context: BrowserContext, page: Page) -> None:
    page.goto(f"{HERE}/functions/hello/test")
    sign_in(page)
    typed = page.get_by_label("Event (JSON)")
    typed.fill("{")
    page.get_by_role("button", name="Run").click()
    expect(typed).to_be_focused()
    typed.fill('{"kept": true}')
    context.clear_cookies()
    page.get_by_role("button", name="Run").click()

    expect(page.get_by_role("alert")).to_contain_text("Your text stays here")
    expect(typed).to_have_value('{"kept": true}')


def test_a_page_with_unsent_text_asks_before_it_is_left(engine: Engine, page: Page) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.goto(f"{HERE}/functions/hello/test")
    sign_in(page)
    page.on("dialog", stay)
    page.get_by_label("Event (JSON)").press_sequentially("[1]")
    with page.expect_event("dialog"):
        page.get_by_role("link", name="Queues").click()
    expect(page.get_by_label("Event (JSON)")).to_have_value(re.compile("1"))
    assert asked == ["beforeunload"]
    page.get_by_label("Event (JSON)").fill("[1]")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("region", name="succeeded")).to_be_visible()
    page.get_by_role("link", name="Queues").click()
    page.wait_for_url(re.compile("queues"))
    assert asked == ["beforeunload"]
