"""Code that is refused: of a runtime that the engine does not have, for a published version, and beyond the quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.http_app import BASE, HELLO, PROJECT, Api, encoded, urn_of, zipped
from tests.support.triggering import api_client, house


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
