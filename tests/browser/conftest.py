"""Debian's Chromium for the tests of the console: one browser for each test module, one page for each test.

Playwright's event loop runs in the thread of the tests until its module ends, so it must not outlive the module: tests
of other modules run loops of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from shutil import which
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.support.programs import program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module", autouse=True)  # before an engine is started for a test that is skipped
def browser() -> Iterator[Browser]:
    chromium = which("chromium-headless-shell") or program("chromium")  # the first uses half the processor time
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a state that stays may come late on a busy machine
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine without credentials."""
    with engine_on(tmp_path_factory.mktemp("browser") / "data") as engine:
        yield engine


@pytest.fixture
def context(browser: Browser, engine: EngineProcess) -> Iterator[BrowserContext]:
    """Open a browser window whose relative addresses are those of the engine."""
    context = browser.new_context(base_url=engine.url)
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def plain_page(browser: Browser, engine: EngineProcess) -> Iterator[Page]:
    """Open a page in a browser without scripts."""
    context = browser.new_context(base_url=engine.url, java_script_enabled=False)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Open a page. After the test, fail if the page reported an error on its console, also one of the CSP."""
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    assert not [problem for problem in problems if "status of 4" not in problem], problems
