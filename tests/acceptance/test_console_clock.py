"""Clock in doubt, in the console: the overview says so, and its form accepts the clock."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

from tests.acceptance import wrong_clock
from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import EngineProcess


def test_the_overview_lets_a_clock_in_doubt_be_accepted(tmp_path: Path) -> None:
    ahead, engine = tmp_path / "ahead", EngineProcess(tmp_path / "data")
    engine.program = [wrong_clock.__file__, str(ahead)]
    ahead.write_text("0")
    try:
        engine.start()
        engine.stop()
        ahead.write_text(str(400 * 86_400))
        engine.start()

        page = visit(engine, "/console/")
        assert "The clock is in doubt It is not trusted: 400 days ahead" in page.text
        token = next(one["value"] for tag, one in page.tags if tag == "input" and one.get("name") == "form_token")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode({"form_token": token}).encode()
        reply = engine.ask("POST", "/console/clock/accept", body, headers=headers)

        assert (reply.status, reply.headers["location"]) == (303, "/console/")
        assert "The clock is in doubt" not in visit(engine, "/console/").text
    finally:
        engine.close()
