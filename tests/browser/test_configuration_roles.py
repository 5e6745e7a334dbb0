"""Configuration of a function as the role read sees it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.browser.configured import HERE, config, create_full

ADMIN, READ = "a-token-with-the-role-admin", "a-token-with-the-role-read"
PAGES = ("", "/environment", "/concurrency", "/versions", "/aliases/prod", "/tags", "/reserved", "/reserved/!prod")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with credentials of two roles."""
    folder = tmp_path_factory.mktemp("roles")
    file = folder / "credentials.toml"
    tokens = ((ADMIN, "admin"), (READ, "read"))
    file.write_text(
        "\n".join(f'[[tokens]]\ntoken = "{token}"\nproject = "project1"\nrole = "{role}"' for token, role in tokens)
    )
    file.chmod(0o600)
    with engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(file)) as engine:
        engine.headers["X-Auth-Token"] = ADMIN
        create_full(engine)
        yield engine


def test_a_reader_sees_no_secret_and_can_change_nothing(engine: EngineProcess, context: BrowserContext) -> None:
    before = config(engine, "full")
    context.set_extra_http_headers({"X-Auth-Token": READ})
    page = context.new_page()
    for path in PAGES:
        page.goto(f"{HERE}/full/configuration{path}")

        expect(page.get_by_role("heading", name="full")).to_be_visible()
        assert not [secret for secret in ("hunter2", "LANGUAGE", "PASSWORD", "ab c") if secret in page.content()]
        for name in ("Save", "Publish", "Delete", "Remove", "Pause"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        for field in page.locator("main input:visible, main select:visible, main textarea:visible").all():
            expect(field).to_be_disabled()

    page.goto(f"{HERE}/full/configuration")
    token = page.locator("[name=form_token]").first.input_value()
    reply = engine.ask(
        "POST",
        f"{HERE}/full/configuration",
        urlencode({"form_token": token, "timeout": "99"}).encode(),
        headers={"X-Auth-Token": READ, "Content-Type": "application/x-www-form-urlencoded"},
    )

    assert reply.status == 403
    assert "PatchFunctionConfig" in reply.body.decode()
    assert config(engine, "full") == before
