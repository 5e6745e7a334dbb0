"""A function's code, its creation and its removal, in a browser."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, urn_of
from tests.browser.axe import violations
from tests.support.http_app import encoded, zipped

HERE = f"/console/projects/{PROJECT}"
HOSTILE = "<script>alert(1)</script>"
FILES = {
    "index.py": b"def handler(event, context):\n    return 1\n",
    f"lib/{HOSTILE.replace('/', '-')} \u05d0.txt": HOSTILE.encode() + b"\r\n",
    "lib/" + "long" * 60 + ".txt": b"",
    "image.bin": b"\0\1\2",
    "large.txt": b"x" * 300_000,
}


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    engine.create("hello", "def handler(event, context):\n    return event\n")
    file = encoded(zipped(**FILES))
    engine.create("packed", "", code_type="zip", func_code={"file": file})


def code_of(engine: EngineProcess, name: str) -> bytes:
    reply = engine.ask("GET", f"{BASE}/{urn_of(name)}/code")
    return base64.b64decode(reply.json["func_code"]["file"])


def test_inline_code_is_edited_with_the_keyboard(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions/hello")
    editor = page.get_by_label("index.py")
    editor.fill("def handler(event, context):\n")
    editor.press("End")
    editor.press("Tab")
    page.keyboard.type(f"return '{HOSTILE}'")
    editor.press("Escape")
    editor.press("Tab")
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert code_of(engine, "hello").decode() == f"def handler(event, context):\n    return '{HOSTILE}'"
    expect(page.get_by_label("index.py")).to_have_value(code_of(engine, "hello").decode())


def test_files_of_a_package_are_listed_and_read(page: Page) -> None:
    page.goto(f"{HERE}/functions/packed")
    expect(page.get_by_label("index.py")).to_have_value(FILES["index.py"].decode())
    for file, text in (("image.bin", "binary"), ("large.txt", "more than 256 KiB"), ("<script>", HOSTILE)):
        page.get_by_role("link", name=file).click()
        expect(page.locator(".source")).to_contain_text(text)
    page.goto(f"{HERE}/functions/packed?file=../../journal.db")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not found")


def test_a_file_of_a_package_is_edited(engine: EngineProcess, page: Page) -> None:
    engine.create("edited", "", code_type="zip", func_code={"file": encoded(zipped(**FILES))})
    page.goto(f"{HERE}/functions/edited")
    page.get_by_role("link", name="<script>").click()
    page.locator("#f-code").fill("one\ntwo\n")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_role("status")).to_contain_text("Saved lib/<script>")
    expect(page.locator("#f-code")).to_have_value("one\ntwo\n")
    with zipfile.ZipFile(io.BytesIO(code_of(engine, "edited"))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(file for file in FILES if HOSTILE.replace("/", "-") in file)
    assert files == {**FILES, name: b"one\r\ntwo\r\n"}


def test_dependencies_are_chosen(engine: EngineProcess, page: Page) -> None:
    file = encoded(zipped(library__py="X = 1\n"))
    body = {"name": "library", "runtime": "Python3.10", "depend_type": "zip", "depend_file": file}
    made = engine.ask("POST", f"/v2/{PROJECT}/fgs/dependencies/version", body).json
    page.goto(f"{HERE}/functions/hello")
    page.get_by_label("library").check()
    page.get_by_role("button", name="Save dependencies").click()

    expect(page.get_by_role("status")).to_contain_text("Dependencies saved")
    expect(page.get_by_label("library")).to_be_checked()
    assert [
        dependency["id"] for dependency in engine.ask("GET", f"{BASE}/{urn_of('hello')}/config").json["dependencies"]
    ] == [made["id"]]


def test_a_package_is_uploaded_and_downloaded(engine: EngineProcess, page: Page, tmp_path: Path) -> None:
    large = zipped(index__py="def handler(event, context):\n    return 2\n", noise=os.urandom(3 << 20))
    (tmp_path / "new.zip").write_bytes(large)
    (tmp_path / "broken.zip").write_bytes(b"no zip" * 100_000)
    engine.create("uploaded", "", code_type="zip", func_code={"file": encoded(zipped(**FILES))})
    page.goto(f"{HERE}/functions/uploaded")
    page.get_by_label("Zip file").set_input_files(tmp_path / "broken.zip")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#f-package-error")).to_contain_text("not a sound zip file")
    page.get_by_label("Zip file").set_input_files(tmp_path / "new.zip")
    page.get_by_role("button", name="Upload").click()

    expect(page.get_by_role("status")).to_contain_text("Uploaded")
    assert code_of(engine, "uploaded") == large
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "uploaded.zip"
    assert Path(download.value.path()).read_bytes() == large


def test_a_published_version_is_shown_but_not_edited(engine: EngineProcess, page: Page) -> None:
    engine.create("fixed", "first = 1\n")
    engine.ask("POST", f"{BASE}/{urn_of('fixed')}/versions", {"version": "v1"})
    page.goto(f"{HERE}/functions/fixed")
    page.get_by_label("index.py").fill("second = 2\n")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_label("Version", exact=True).select_option("v1")
    page.get_by_role("button", name="Show").click()

    expect(page.get_by_label("Text of index.py")).to_have_text("first = 1\n")
    expect(page.get_by_role("button", name="Save", exact=True)).to_have_count(0)


def test_a_function_is_created_from_the_template_of_its_runtime(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions")
    page.get_by_role("link", name="Create function").click()
    page.get_by_label("Name").fill("1 bad name")
    page.get_by_label("Timeout").fill("1")
    page.get_by_role("button", name="Create function").click()
    expect(page.locator("#f-func_name-error")).to_be_visible()
    page.get_by_label("Name").fill("made")
    page.get_by_role("button", name="Create function").click()
    expect(page.locator("#f-timeout-error")).to_contain_text("3")
    page.get_by_label("Timeout").fill("10")
    page.get_by_label("Runtime", exact=True).select_option("Custom")
    expect(page.get_by_label("Handler")).to_have_value("bootstrap")
    expect(page.get_by_role("textbox", name="Inline code")).to_have_value(code_template())
    assert violations(page) == []
    page.get_by_label("Runtime", exact=True).select_option("Python3.10")
    page.get_by_role("button", name="Create function").click()

    expect(page.get_by_role("status")).to_contain_text("Created made")
    assert b"def handler" in code_of(engine, "made")


def test_a_runtime_that_is_chosen_before_the_scripts_have_arrived_brings_its_template(page: Page) -> None:
    def choose_first(script: Route) -> None:
        page.get_by_label("Runtime", exact=True).select_option("Custom")
        script.continue_()

    page.route("**/code.js", choose_first)
    page.goto(f"{HERE}/create-function")

    expect(page.get_by_label("Handler")).to_have_value("bootstrap")
    expect(page.get_by_role("textbox", name="Inline code")).to_have_value(code_template())


def code_template() -> str:
    from engine.code.default_code import default_code

    return default_code("inline", "bootstrap", "Custom").decode()


def test_a_function_is_created_from_a_package(engine: EngineProcess, page: Page, tmp_path: Path) -> None:
    content = zipped(**FILES)
    (tmp_path / "new.zip").write_bytes(content)
    page.goto(f"{HERE}/create-function")
    page.get_by_label("Name").fill("create")
    page.get_by_label("Upload a zip package").check()
    page.get_by_role("button", name="Create function").click()
    expect(page.locator("#f-file-error")).to_contain_text("choose a zip file")
    page.get_by_label("Zip file").set_input_files(tmp_path / "new.zip")
    page.get_by_role("button", name="Create function").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("create")
    assert code_of(engine, "create") == content


def test_a_function_is_deleted_after_its_name_was_typed(engine: EngineProcess, page: Page) -> None:
    engine.create("gone", "pass\n")
    timer = {"name": "t", "schedule_type": "Rate", "schedule": "1d"}
    engine.trigger("gone", "TIMER", timer)
    engine.ask("POST", f"{BASE}/{urn_of('gone')}/pause", {})
    engine.accepted("gone")
    page.goto(f"{HERE}/functions/gone")
    page.get_by_role("link", name="Delete").click()
    expect(page.get_by_role("main")).to_contain_text("1 trigger: 1 TIMER")
    expect(page.get_by_role("main")).to_contain_text("1 waiting invocation")
    assert violations(page) == []
    page.get_by_label("Type gone to confirm").fill("other")
    page.get_by_role("button", name="Delete function").click()
    expect(page.locator("#f-name-error")).to_contain_text("type gone")
    page.get_by_label("Type gone to confirm").fill("gone")
    page.get_by_role("button", name="Delete function").click()

    expect(page.get_by_role("status")).to_contain_text("Deleted gone")
    assert engine.ask("GET", f"{BASE}/{urn_of('gone')}/config").status == 404


def test_functions_are_searched_by_name(engine: EngineProcess, page: Page) -> None:
    engine.ask("POST", f"{BASE}/{urn_of('packed')}/pause", {"reason": HOSTILE})
    page.goto(f"{HERE}/functions")
    expect(page.get_by_role("main")).to_contain_text(f"Paused: {HOSTILE}")
    page.get_by_label("Name contains").fill("hel")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_label("Name contains").fill(HOSTILE)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("main")).to_contain_text(f"contains “{HOSTILE}”")
