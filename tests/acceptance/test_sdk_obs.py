"""Vendor's SDK with function code in an object store: an S3 server or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings
from tests.acceptance.sdk import (
    SDK_WARNINGS,
    ClientRequestException,
    Platform,
    ask,
    create,
    encoded,
    ended,
    invoke,
    platform_on,
    refused,
)
from tests.acceptance.test_sdk import add_dependency, export, take_in
from tests.support.http_app import zipped
from tests.support.s3_server import S3Server, s3_server

pytestmark = [
    pytest.mark.long,
    *SDK_WARNINGS,
]


def saying(word: str) -> bytes:
    """Return a package whose function returns ``word``."""
    return zipped(index__py=f"def handler(event, context):\n    return {word!r}\n")


SOURCE = saying("source")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        put(running.service, "source.zip", SOURCE)
        put(running.service, "layer.zip", zipped(shared__py="VALUE = 'layer'\n"))
        put(running.service, "text.zip", b"no zip at all")
        yield running


@pytest.fixture(scope="module")
def with_store(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_on(tmp_path_factory.mktemp("obs"), **server.settings) as running:
        yield running


def put(service: ObsSettings, key: str, content: bytes) -> None:
    async def write() -> None:
        async with StoreOpener(service).open() as store:
            await store.write("code", key, content)

    anyio.run(write)


def link(key: str) -> str:
    return f"https://code.obs.cn-north-4.myhuaweicloud.com/{key}"


def create_linked(platform: Platform, name: str, url: str) -> Any:
    return create(platform, name, code_type="obs", code_url=url, func_code=None)


def result(platform: Platform, name: str) -> str:
    text: str = ended(platform, name, invoke(platform, name))["result"]
    return text.strip('"')


def test_a_function_runs_from_the_object_that_its_link_names(with_store: Platform) -> None:
    created = create_linked(with_store, "linked", link("source.zip"))
    shown = ask(with_store, "ShowFunctionCode", "linked")

    assert (created.code_type, created.code_url, created.code_filename) == ("obs", link("source.zip"), "source.zip")
    assert created.code_size == len(SOURCE)
    assert (shown.func_code.file, shown.func_code.link) == (encoded(SOURCE), link("source.zip"))
    assert result(with_store, "linked") == "source"


def test_new_code_is_fetched_when_the_code_is_updated_and_not_before(server: S3Server, with_store: Platform) -> None:
    put(server.service, "changing.zip", saying("before"))
    create_linked(with_store, "changing", "obs://code/changing.zip")
    put(server.service, "changing.zip", saying("after"))
    unchanged = result(with_store, "changing")

    updated = ask(with_store, "UpdateFunctionCode", "changing", code_type="obs", code_url="obs://code/changing.zip")

    assert (unchanged, result(with_store, "changing")) == ("before", "after")
    assert updated.code_type == "obs"


def test_a_dependency_comes_by_its_link(with_store: Platform) -> None:
    layer = depend_on(with_store, "linked", link("layer.zip"))
    create(
        with_store,
        "layered",
        "import shared\n\ndef handler(event, context):\n    return shared.VALUE\n",
        depend_version_list=[layer.id],
    )

    assert (layer.link, layer.file_name) == (link("layer.zip"), "linked.zip")
    assert result(with_store, "layered") == "layer"


def test_a_linked_function_that_was_exported_comes_in_with_its_code(with_store: Platform) -> None:
    create_linked(with_store, "exported", link("source.zip"))

    imported = take_in(with_store, "imported", export(with_store, "exported"))

    assert imported.code_type == "zip"
    assert result(with_store, "imported") == "source"


def depend_on(platform: Platform, name: str, url: str) -> Any:
    return add_dependency(platform, name, depend_type="obs", depend_file=None, depend_link=url)


@pytest.mark.parametrize(
    ("make", "url", "status", "code"),
    [
        (create_linked, link("nothing.zip"), 404, "FSS.1054"),
        (create_linked, "obs://nowhere/source.zip", 404, "FSS.1054"),
        (create_linked, link("text.zip"), 400, "FSS.1011"),
        (create_linked, "", 400, "FSS.1010"),
        (create_linked, "http://169.254.169.254/latest/meta-data", 400, "FSS.1010"),
        (create_linked, link("source.zip?versionId=1"), 400, "FSS.1010"),
        (depend_on, link("nothing.zip"), 404, "FSS.1054"),
        (depend_on, link("text.zip"), 400, "FSS.1024"),
        (depend_on, "layer.zip", 400, "FSS.1010"),
    ],
)
def test_what_a_link_does_not_lead_to_is_refused(
    with_store: Platform, make: Callable[[Platform, str, str], object], url: str, status: int, code: str
) -> None:
    with refused(status, code):
        make(with_store, "refused", url)


def test_without_a_store_links_are_refused_and_the_settings_named(platform: Platform) -> None:
    with pytest.raises(ClientRequestException, match=r"plugins\.obs\.endpoint or plugins\.obs\.folder") as caught:
        create_linked(platform, "storeless", link("source.zip"))

    assert (caught.value.status_code, caught.value.error_code) == (400, "FSS.1006")
