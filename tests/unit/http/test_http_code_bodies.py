"""Large bodies with code: the code goes to disk while it arrives."""

from __future__ import annotations

import base64
import json
import random
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import pytest
from functiond.signing import hash_of, sign

from engine.asgi.listener import listen
from engine.auth.credentials import AccessKey
from engine.auth.throttle import AuthThrottle
from engine.code.receiving import REST_LIMIT
from engine.http.auth import Authenticator
from engine.http.spool import IN_MEMORY, Spool, SpoolSpace
from tests.doubles import ManualClock
from tests.support.full_disk import full_disk
from tests.support.http_app import BASE, HELLO, PROJECT, SOURCE, Answer, Api, Chunks, encoded, serve, urn_of, zipped
from tests.support.triggering import api_client, house

SECRET = "the-secret-of-a-key"


def package() -> bytes:
    """Return a zip of two megabytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("index.py", SOURCE)
        archive.writestr("data", random.Random(1).randbytes(2 << 20))
    return buffer.getvalue()


ZIP = package()
BODY = json.dumps({**HELLO, "code_type": "zip", "func_code": {"file": encoded(ZIP)}}).encode()


def temporary(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".new")]


def stored(api: Api) -> bytes:
    [function] = api.catalog.list(PROJECT)
    code = api.codes.folder(function.code)
    assert (code / "index.py").read_text() == SOURCE
    return code.with_name(f"{code.name}.package").read_bytes()


def pieces(body: bytes) -> Chunks:
    return Chunks(body[start : start + 10_000] for start in range(0, len(body), 10_000))


def failed(answer: Answer, status: int, code: str, said: str) -> bool:
    assert (answer.status, answer.json["error_code"]) == (status, code), answer.raw[:300]
    return said in answer.json["error_msg"]


@pytest.mark.parametrize("body", [BODY, pieces(BODY)], ids=["whole", "in chunks"])
async def test_large_code_is_stored_as_it_was_sent(api: Api, tmp_path: Path, body: bytes | Chunks) -> None:
    answer = await api.send("POST", "", body)

    assert (answer.status, stored(api), temporary(tmp_path)) == (200, ZIP, [])


async def test_large_code_replaces_that_of_a_function(api: Api) -> None:
    await api.create()

    answer = await api.send("PUT", f"/{urn_of()}/code", {"code_type": "zip", "func_code": {"file": encoded(ZIP)}})

    assert (answer.status, stored(api)) == (200, ZIP)
    assert base64.b64decode(answer.json["func_code"]["file"]) == ZIP


async def test_a_large_dependency_is_stored(api: Api, tmp_path: Path) -> None:
    body = {"name": "lib", "runtime": "Python3.10", "depend_type": "zip", "depend_file": encoded(ZIP)}

    answer = await api.send("POST", "/version", body, base=BASE.replace("functions", "dependencies"))

    assert (answer.status, answer.json["size"], temporary(tmp_path)) == (200, len(ZIP), [])


async def test_a_large_package_is_imported(api: Api, tmp_path: Path) -> None:
    await api.send("POST", "", BODY)
    exported = await api.send("GET", f"/{urn_of()}/export")
    body = {"func_name": "copy", "file_name": "a.zip", "file_type": "zip", "file_code": encoded(exported.raw)}

    answer = await api.send("POST", "/import", body)

    codes = {function.name: function.code.sha256 for function in api.catalog.list(PROJECT)}
    assert (answer.status, temporary(tmp_path)) == (200, [])
    assert codes["copy"] == codes["hello"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"func_code": {"file": encoded(ZIP) + "*"}}, 400, "FSS.1011", "func_code is 'UEsDB"),
        ({"func_code": {"file": encoded(ZIP[:-5])}}, 400, "FSS.1011", "it is not a sound zip file"),
        ({"func_code": {"file": " " * 100_000}}, 400, "FSS.1012", "needs the code as base64"),
        ({"code_type": "inline"}, 413, "FSS.1072", "inline code is larger than the 10240 bytes"),
        ({"code_type": "jar"}, 400, "FSS.1006", "code_type is 'jar'"),
        ({"code_type": ""}, 400, "FSS.1006", "must be inline, zip or obs"),
        ({"timeout": 2}, 400, "FSS.1008", "timeout is 2"),
        ({"tags": "x" * (REST_LIMIT + 1)}, 413, "FSS.0413", "the fields beside the code are larger than"),
    ],
)
async def test_errors_are_those_of_small_bodies(
    api: Api, tmp_path: Path, fields: dict[str, object], status: int, code: str, said: str
) -> None:
    answer = await api.send("POST", "", {**json.loads(BODY), **fields})

    assert failed(answer, status, code, said), answer.json
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", b"[" * 200_000, BODY.replace(b'"hello"', b'"\xff"')])
async def test_broken_bodies_are_not_json(api: Api, tmp_path: Path, body: bytes) -> None:
    answer = await api.send("POST", "", body)

    assert failed(answer, 406, "FSS.0406", "the body must be JSON in UTF-8"), answer.json
    assert temporary(tmp_path) == []
    answer = await api.send("POST", "", BODY, {"Content-Type": "text/plain"})
    assert failed(answer, 406, "FSS.0406", "its Content-Type is 'text/plain'")


async def test_a_word_of_the_client_stands_for_no_code(api: Api) -> None:
    fields = {**json.loads(BODY), "func_code": {"link": "x", "file": ""}, "x": {"file": encoded(ZIP)}}

    answer = await api.send("POST", "", fields)

    assert failed(answer, 400, "FSS.1012", "needs the code as base64")


@asynccontextmanager
async def secured(folder: Path, clock: ManualClock) -> AsyncIterator[tuple[Api, Authenticator]]:
    """Serve an API that requires credentials. It spools bodies in ``spool``."""
    keys, failures = [AccessKey(access="AK", secret=SECRET, project=PROJECT)], AuthThrottle(clock, limit=5, window=60.0)
    authenticator = Authenticator(keys, [], clock=clock, failures=failures, body_limits={}, spool=folder / "spool")
    async with (
        serve(folder / "code") as api,
        listen(api.app(authenticator=authenticator), "127.0.0.1", 0) as api.port,
    ):
        yield api, authenticator


async def test_unproven_bodies_fill_only_their_space_on_disk(tmp_path: Path) -> None:
    clock = ManualClock()
    async with secured(tmp_path, clock) as (api, authenticator):
        headers = {"Host": f"localhost:{api.port}", "Content-Type": "application/json"}
        proof = sign("POST", BASE, headers, BODY, access="AK", secret=SECRET, moment=clock.now())
        declaring = headers | {"X-Sdk-Content-Sha256": hash_of(BODY).decode()}
        declared = sign("POST", BASE, declaring, BODY, access="AK", secret=SECRET, moment=clock.now())

        space = authenticator._spooling.unproven
        space.size = len(BODY)  # of which one client may fill half
        refused = await api.send("POST", "", BODY, headers | proof)
        taken = await api.send("POST", "", BODY, declaring | declared)
        space.size = 2 * len(BODY)
        wrong = [await api.send("POST", "", BODY.replace(b"hello", b"other"), headers | proof) for _ in range(3)]

        assert failed(refused, 503, "FSS.0503", "declare the hash of the body in X-Sdk-Content-Sha256")
        assert (taken.status, stored(api)) == (200, ZIP)
        assert [answer.status for answer in wrong] == [401] * 3  # each has left the space
        assert space.taken == 0


async def test_signed_code_is_stored_once_its_signature_is_verified(tmp_path: Path) -> None:
    clock = ManualClock()
    async with secured(tmp_path, clock) as (api, _):
        headers = {"Host": f"localhost:{api.port}", "Content-Type": "application/json"}
        headers |= sign("POST", BASE, headers, BODY, access="AK", secret=SECRET, moment=clock.now())

        wrong = await api.send("POST", "", BODY.replace(b"hello", b"other"), headers)
        unknown = list(api.catalog.list(PROJECT))
        right = await api.send("POST", "", BODY, headers)
        chunked = await api.send("POST", "", pieces(BODY), headers)

        assert (wrong.status, unknown) == (401, [])
        assert (right.status, stored(api)) == (200, ZIP)
        assert failed(chunked, 409, "FSS.1061", "The function has existed")
        assert list((tmp_path / "spool").iterdir()) == []


async def test_a_full_disk_does_not_affect_the_end_of_a_request(tmp_path: Path) -> None:
    spool = Spool(SpoolSpace(tmp_path), "192.0.2.1", proven=False)
    await spool.write(b"x" * (IN_MEMORY + 1))
    await spool.write(b"x")

    with full_disk():
        await spool.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"runtime": "Custom Image", "handler": "-", "code_type": None}, ["no images", "http", "Custom", "bootstrap"]),
        ({"runtime": "Java11", "code_type": "jar"}, ["'Java11'", "http", "Custom", "bootstrap"]),
        ({"runtime": "Cobol", "code_type": None}, ["'Cobol'", "Python3.x"]),
    ],
)
async def test_a_runtime_that_cannot_run_is_refused_with_those_to_use(
    api: Api, fields: dict[str, object], words: list[str]
) -> None:
    refused = await api.create("refused", **fields)

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1005")
    assert [word for word in words if word not in refused.json["error_msg"]] == []


async def test_the_code_of_a_published_version_stays(api: Api) -> None:
    await api.create()
    await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
    path, body = f"/{urn_of(version=':v1')}/code", {"code_type": "inline", "func_code": {"file": encoded("x = 1")}}
    before = await api.send("GET", path)

    refused = await api.send("PUT", path, body)

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1015")
    assert (await api.send("GET", path)).json == before.json


async def test_code_beyond_the_quota_is_refused_whatever_it_is_for(tmp_path: Path) -> None:
    large = {kind: zipped(index__py=f"KIND = '{kind}'\n" + "".join(map(str, range(900_000)))) for kind in "abc"}
    code = {kind: {"code_type": "zip", "func_code": {"file": encoded(zip_file)}} for kind, zip_file in large.items()}
    dependencies = f"/v2/{PROJECT}/fgs/dependencies"
    package = {"name": "layer", "runtime": "Python3.10", "depend_type": "zip"}
    quota = 2 * len(large["a"]) + len(large["b"]) // 2

    async with house(tmp_path, storage__code_quota=quota) as place, api_client(place) as client:
        for name in ("first", "same"):
            created = await client.post(BASE, json={**HELLO, **code["a"], "func_name": name})
            assert created.status_code == 200, created.text
        layer = await client.post(f"{dependencies}/version", json={**package, "depend_file": encoded(large["b"])})
        refused = [
            await client.post(BASE, json={**HELLO, **code["c"], "func_name": "third"}),
            await client.put(f"{BASE}/{urn_of('first')}/code", json=code["c"]),  # "same" keeps the code of "first"
            await client.post(f"{dependencies}/version", json={**package, "depend_file": encoded(large["c"])}),
        ]
        used = (await client.get(f"/v2/{PROJECT}/fgs/quotas")).json()["quotas"]["resources"]
        await client.delete(f"{dependencies}/{layer.json()['dep_id']}/version/1")
        admitted = await client.post(BASE, json={**HELLO, **code["c"], "func_name": "third"})

    assert [(reply.status_code, reply.json()["error_code"]) for reply in refused] == [(403, "FSS.1042")] * 3
    [size] = [resource for resource in used if resource["type"] == "fgs_func_code_size"]
    assert (size["used"], size["quota"], admitted.status_code) == (
        -(-(len(large["a"]) + len(large["b"])) >> 20),
        quota >> 20,
        200,
    )
