"""Contract of code behind links, for every store of such code."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BadLink, ObjectMissing
from engine.protocols import CodeLinks
from plugins.obs.links import ObsLinks
from plugins.obs.options import ObsSettings
from tests.doubles.links import MemoryLinks

CONTENT = bytes(range(256)) * 8192  #: 2 MB


@pytest.fixture(params=["memory", "folder"])
def links(request: pytest.FixtureRequest, tmp_path: Path) -> CodeLinks:
    if request.param == "memory":
        return MemoryLinks({"obs://bucket/in/code.zip": [CONTENT[:1000], CONTENT[1000:]]})
    (tmp_path / "bucket" / "in").mkdir(parents=True)
    (tmp_path / "bucket" / "in" / "code.zip").write_bytes(CONTENT)
    return ObsLinks(ObsSettings(folder=str(tmp_path)))


async def test_a_link_gives_the_whole_object_in_blocks(links: CodeLinks) -> None:
    async with links.open("obs://bucket/in/code.zip") as blocks:
        received = [block async for block in blocks]

    assert b"".join(received) == CONTENT
    assert len(received) > 1


@pytest.mark.parametrize("link", ["obs://bucket/in/other.zip", "obs://other/in/code.zip"])
async def test_an_object_that_is_not_there_is_missing(links: CodeLinks, link: str) -> None:
    with pytest.raises(ObjectMissing):
        await links.open(link).__aenter__()


@pytest.mark.parametrize("link", ["", "in/code.zip", "file:///bucket/in/code.zip", "obs://bucket"])
async def test_a_text_that_is_no_link_is_refused(links: CodeLinks, link: str) -> None:
    with pytest.raises(BadLink):
        await links.open(link).__aenter__()
