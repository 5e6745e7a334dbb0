"""Links to objects: accepted forms and rejected ones, and the objects behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import BadLink, ObjectMissing
from plugins.obs.links import ObsLinks, read_link
from plugins.obs.options import ObsSettings

CONTENT = bytes(range(256)) * 8192  #: 2 MB


@pytest.mark.parametrize(
    ("link", "meant"),
    [
        ("https://code.obs.cn-north-4.myhuaweicloud.com/a/b.zip", ("code", "a/b.zip")),
        ("https://my.code.obs.cn-north-4.myhuaweicloud.com/b.zip", ("my.code", "b.zip")),
        ("https://obs.cn-north-4.myhuaweicloud.com/code/a/b.zip", ("code", "a/b.zip")),
        ("http://code.obs.local:9000/b.zip", ("code", "b.zip")),
        ("http://store.local:8333/code/b.zip", ("code", "b.zip")),
        ("http://code.store.local:8333/b.zip", ("code", "b.zip")),
        ("https://obs.evil.example/code/b.zip", ("code", "b.zip")),
        ("obs://code/a/b.zip", ("code", "a/b.zip")),
        ("s3://code/b.zip", ("code", "b.zip")),
        ("obs://code/%E4%BD%A0%20a+b.zip", ("code", "你 a+b.zip")),
        ("obs://code/a//b", ("code", "a//b")),
        ("HTTPS://CODE.OBS.local/B.zip", ("code", "B.zip")),
    ],
)
def test_a_link_names_a_bucket_and_a_key(link: str, meant: tuple[str, str]) -> None:
    assert read_link(link, "store.local") == meant


@pytest.mark.parametrize(
    "link",
    [
        "",
        "code/b.zip",
        "file:///etc/passwd",
        "ftp://code.obs.local/b.zip",
        "https://evil.example/code/b.zip",
        "http://169.254.169.254/latest/meta-data",
        "https://code.store.local.evil.example/b.zip",
        "https://user@code.obs.local/b.zip",
        "https://code.obs.local/b.zip?versionId=1",
        "https://code.obs.local/b.zip#part",
        "https://code.obs.local",
        "https://code.obs.local/",
        "https://obs.local/code",
        "obs://bucket",
        "https://.obs.local/b.zip",
        "obs://arn:aws:s3:eu:1:accesspoint/b.zip",
        "obs://code:80/b.zip",
        "obs://Code/b.zip",
        "obs://co/b.zip",
        "obs://../b.zip",
        "obs://code/a%00b",
        "obs://code/a%0d%0ab",
        "obs://code/%ff",
        "obs://code/" + "k" * 1025,
        "https://[::1/b.zip",
    ],
)
def test_what_names_no_object_of_a_store_is_refused(link: str) -> None:
    with pytest.raises(BadLink):
        read_link(link, "store.local")


@pytest.fixture
def links(tmp_path: Path) -> ObsLinks:
    (tmp_path / "bucket" / "in").mkdir(parents=True)
    (tmp_path / "bucket" / "in" / "code.zip").write_bytes(CONTENT)
    return ObsLinks(ObsSettings(folder=str(tmp_path)))


async def test_a_link_gives_the_whole_object_in_blocks(links: ObsLinks) -> None:
    async with links.open("obs://bucket/in/code.zip") as blocks:
        received = [block async for block in blocks]

    assert b"".join(received) == CONTENT
    assert len(received) > 1


@pytest.mark.parametrize("link", ["obs://bucket/in/other.zip", "obs://other/in/code.zip"])
async def test_an_object_that_is_not_there_is_missing(links: ObsLinks, link: str) -> None:
    with pytest.raises(ObjectMissing):
        await links.open(link).__aenter__()
