"""Every page of the console, on an engine filled with hostile names and payloads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from playwright.sync_api import Dialog, Page

from engine.http.console.paths import STATIC
from tests.acceptance.engine_process import PROJECT, EngineProcess
from tests.browser.axe import violations
from tests.browser.hostile import NAME, fill
from tests.support.console_operations import PAGES

#: Paths that are no pages: streams of events, and those that lead to another page.
STREAMS = {"ConsoleEvents", "ConsoleFunctionLogStream"}
LEADING = {"ConsoleStart", "Start", "ConsoleDocsIndex", "ConsoleSignInPage"}
ABSENT = {"ConsoleNodes"}  #: the engine of these tests has none
#: Tests that the pages are divided among, since all of them take longer than one test may on a busy machine.
PARTS = 4
#: Further states of pages.
VARIANTS = (
    f"/console/projects/{PROJECT}/queues?all=1",
    f"/console/projects/{PROJECT}/invocations?status=FAIL",
    "/console/projects/empty/functions",
    "/console/projects/empty/queues",
    "/console/projects/empty/deliveries",
    f"/console/projects/{PROJECT}/functions/{NAME}/configuration/triggers/new?kind=APIG",
    f"/console/projects/{PROJECT}/functions/{NAME}/configuration/triggers/new?kind=KAFKA",
    "/console/projects/empty/triggers",
    "/console/docs/console",
)


@pytest.fixture(scope="module")
def examples(engine: EngineProcess) -> Mapping[str, str]:
    return fill(engine)


def addresses(examples: Mapping[str, str]) -> list[str]:
    """Return the address of each page. Fails for a parameter of a path that has no example."""
    paths = []
    for page in PAGES:
        if page.name not in STREAMS | LEADING | ABSENT and not page.path.startswith(STATIC):
            names = re.findall(r"\{([^}]+)\}", page.path)
            assert set(names) <= set(examples), f"{page.path} needs an example in tests/browser/hostile.py"
            paths.append(re.sub(r"\{([^}]+)\}", lambda name: quote(examples[name[1]]), page.path))
    return [*paths, *VARIANTS]


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_is_accessible_and_keeps_its_layout(
    engine: EngineProcess, examples: Mapping[str, str], page: Page, part: int
) -> None:
    problems, seen = list[str](), 0

    def note_dialog(dialog: Dialog) -> None:
        problems.append(f"{page.url}: a script asks {dialog.message}")
        dialog.dismiss()

    page.on("dialog", note_dialog)
    for address in addresses(examples)[part::PARTS]:
        reply = engine.ask("GET", address, headers={"Accept": "text/html"})
        if reply.status != (404 if "no-such-page" in address else 200):
            problems.append(f"{address}: status {reply.status}")
        elif reply.headers["content-type"].startswith("text/html"):  # else a file to download
            page.goto(address)
            problems += violations(page)
            seen += 1

    assert seen > 5
    assert problems == [], "\n".join(problems)
