"""Lives of dependencies in the requests of the vendor's provider for Terraform. Packages are in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.support.http_app import zipped

ROOT = f"/v2/{PROJECT}/fgs/dependencies"
AGENT = {"User-Agent": "terraform-provider-iac golangsdk/2.0.0"}
SOURCE = "import lib\n\ndef handler(event, context):\n    return lib.VALUE\n"
FIRST, SECOND = (zipped(lib__py=f"VALUE = '{word}'\n") for word in ("first", "second"))


class Provider(Struct):
    """Requests of the provider to an engine with two objects, ``first.zip`` and ``second.zip``."""

    engine: EngineProcess

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        return self.engine.ask(method, path, body, headers=AGENT)

    def shown(self, path: str) -> Any:
        reply = self.ask("GET", path)
        assert reply.status == 200, reply
        return reply.json

    def called(self, name: str) -> str:
        """Call a function and return its result."""
        return self.ask("POST", f"{BASE}/{urn_of(name)}/invocations", {}).body.decode()

    def pages(self, path: str) -> list[list[Any]]:
        """Return the pages of a list, read until one is empty or its marker stays the same."""
        pages: list[list[Any]] = []
        marker = 0.0
        while True:
            separator = "&" if "?" in path else "?"
            page = self.shown(f"{path}{separator}maxitems=2&marker={marker:g}")
            if not page["dependencies"]:
                return pages
            pages.append(page["dependencies"])
            if page["next_marker"] in (marker, 0):
                return pages
            marker = page["next_marker"]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder: Path = tmp_path_factory.mktemp("terraform")
    (folder / "objects" / "code").mkdir(parents=True)
    for name, package in (("first", FIRST), ("second", SECOND)):
        (folder / "objects" / "code" / f"{name}.zip").write_bytes(package)
    with engine_on(folder / "data", FUNCTIOND_PLUGINS__OBS__FOLDER=str(folder / "objects")) as engine:
        yield Provider(engine=engine)


def link(name: str) -> str:
    return f"https://code.obs.cn-north-4.myhuaweicloud.com/{name}.zip"


def body(name: str, package: str = "first", **fields: str) -> dict[str, str]:
    return {
        "name": name,
        "runtime": "Python2.7",
        "description": "Created by terraform script",
        "depend_type": "obs",
        "depend_link": link(package),
        **fields,
    }


def test_a_changed_package_outlives_a_crash_of_the_engine(provider: Provider) -> None:
    lib = provider.ask("POST", ROOT, body("durable", runtime="Python3.10")).json
    provider.engine.create("lasting", SOURCE, depend_version_list=[lib["id"]])
    provider.ask("PUT", f"{ROOT}/{lib['id']}", body("durable", "second", runtime="Python3.10"))
    before = provider.shown(f"{ROOT}/{lib['id']}")

    provider.engine.kill(children=True)
    provider.engine.start()

    assert provider.shown(f"{ROOT}/{lib['id']}") == before
    assert provider.called("lasting") == "second"


def test_more_dependencies_and_versions_than_a_page_holds(provider: Provider) -> None:
    ids = [provider.ask("POST", ROOT, body(f"many{number}")).json["id"] for number in range(3)]
    for _ in range(2):
        last = provider.ask("POST", f"{ROOT}/version", body("many0")).json

    pages = provider.pages(f"{ROOT}?dependency_type=private&runtime=Python2.7&name=many")
    versions = provider.pages(f"{ROOT}/{ids[0]}/version")

    assert [len(page) for page in pages] == [2, 1]
    assert [dependency["id"] for page in pages for dependency in page] == ids
    assert [[version["version"] for version in page] for page in versions] == [[3, 2], [1]]
    assert (last["dep_id"], last["version"]) == (ids[0], 3)
