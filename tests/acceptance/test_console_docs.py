"""Documentation in the console of a running engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.http.console.paths import SCRIPTS
from tests.acceptance.browsing import Page, foreign, visit
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.acceptance.two_keys import TOKEN, two_keys
from tests.support.documents import DOCS

HOME = "/console/docs/"


@pytest.fixture(scope="module")
def pages(engine: EngineProcess) -> dict[str, Page]:
    """Return all pages linked from the index, by path."""
    index = visit(engine, HOME)
    paths = {link.partition("#")[0] for link in index.links(HOME)}
    return {HOME: index} | {path: visit(engine, path) for path in paths - {HOME}}


def test_every_file_is_a_page(pages: dict[str, Page]) -> None:
    names = {file.stem for file in DOCS.glob("*.md")} - {"index"} | {"architecture"}

    assert set(pages) == {HOME} | {HOME + name for name in names}
    assert [path for path, page in pages.items() if page.reply.status != 200] == []
    assert "Exit codes" in pages[f"{HOME}operations"].text


def test_links_between_pages_resolve(pages: dict[str, Page]) -> None:
    anchors = {
        path: {attributes["id"] for _, attributes in page.tags if "id" in attributes} for path, page in pages.items()
    }
    broken = []
    for path, page in pages.items():
        for link in page.links():
            target, _, anchor = link.partition("#")
            target = target or path
            unknown = target not in pages or (anchor and anchor not in anchors[target])
            if ".md" in link or (target.startswith(HOME) and unknown):
                broken.append((path, link))

    assert broken == []
    assert f"{HOME}trigger-kafka#batches" in pages[f"{HOME}trigger-rabbitmq"].links()


def test_images_of_pages_are_served(engine: EngineProcess, pages: dict[str, Page]) -> None:
    images = {
        attributes["src"]
        for page in pages.values()
        for tag, attributes in page.tags
        if tag == "img" and "static" not in attributes["src"]
    }

    for image in images:
        reply = engine.ask("GET", image)
        assert (reply.status, reply.headers["content-type"], reply.body[:4]) == (200, "image/png", b"\x89PNG")
        assert len(reply.body) < 150_000
    assert images == {HOME + file.name for file in DOCS.glob("*.png")}


def test_pages_are_allowed_by_their_policy(pages: dict[str, Page]) -> None:
    refused = {
        path: [link for link in foreign(page) if not link.startswith("https://")] for path, page in pages.items()
    }

    assert {path: links for path, links in refused.items() if links} == {}
    assert {page.reply.headers["content-security-policy"].count("unsafe") for page in pages.values()} == {0}
    assert [page for page in pages.values() if [tag for tag, _ in page.tags].count("script") != len(SCRIPTS)] == []


def test_every_page_of_the_console_links_to_them(engine: EngineProcess) -> None:
    assert HOME in visit(engine, "/console/").links(HOME)


def test_the_address_without_a_slash_redirects(engine: EngineProcess) -> None:
    reply = engine.ask("GET", HOME.rstrip("/"))

    assert (reply.status, reply.headers["location"]) == (307, HOME)


@pytest.mark.parametrize("name", ["gone", "generate.py", "..%2FREADME", "%2e%2e/README", "settings.md", "a" * 300])
def test_other_files_are_no_pages(engine: EngineProcess, name: str) -> None:
    page = visit(engine, HOME + name)

    assert page.reply.status == 404
    assert re.search("no such page", page.text)


def test_credentials_are_needed_where_the_engine_has_any(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", **two_keys(tmp_path)) as engine:
        refused = visit(engine, HOME)
        engine.headers["X-Auth-Token"] = TOKEN
        shown = visit(engine, HOME)

    assert (refused.reply.status, shown.reply.status) == (401, 200)
