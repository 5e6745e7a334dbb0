"""Choice of the network of functions by the age of a data directory."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.engine_process import engine_on
from tests.support.programs import needs_networks

pytestmark = needs_networks
AUTO = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto"}


def test_a_new_data_directory_gets_networks_and_an_older_one_keeps_the_host_s_until_it_is_set(tmp_path: Path) -> None:
    def network(folder: str, name: str = "", **settings: str) -> object:
        with engine_on(tmp_path / folder, **AUTO, **settings) as engine:
            if name:
                engine.create(name, "def handler(event, context): pass")
            return engine.ask("GET", "/readyz").json["network"]

    assert [network("new", "first"), network("new")] == ["project", "project"]
    assert network("old", "first", FUNCTIOND_EXECUTOR__NETWORK="host") == "host"  # as all were before
    assert network("old") == "host"
    assert network("old", FUNCTIOND_EXECUTOR__NETWORK="project") == "project"
