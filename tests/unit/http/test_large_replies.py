from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.asgi.streaming import Stream
from engine.asgi.wire import Reply
from engine.http.api.large_replies import PIECE, STEP, list_reply, whole_file, with_code
from tests.support.work import turns_during


async def body_of(reply: Reply) -> bytes:
    if not isinstance(reply, Stream):
        return reply.body
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    await reply.run(write)
    assert dict(reply.headers)[b"Content-Length"] == b"%d" % sum(map(len, pieces))
    return b"".join(pieces)


@pytest.mark.parametrize("count", [0, 1, 3, 50])
@pytest.mark.parametrize("size", [1, STEP // 10, STEP])
async def test_a_list_is_sent_as_one_object(count: int, size: int) -> None:
    items = ["x" * size] * count

    reply = await list_reply("items", items, count=count, next_marker=7)

    assert json.loads(await body_of(reply)) == {"items": items, "count": count, "next_marker": 7}


async def test_other_tasks_run_between_the_steps_of_a_large_list() -> None:
    _, turns = await turns_during(list_reply("items", ["x" * STEP] * 10))

    assert turns >= 10


@pytest.mark.parametrize("size", [0, 1, 2, 3, PIECE - 1, PIECE, 2 * PIECE + 1])
async def test_code_is_sent_in_base64_in_its_place(tmp_path: Path, size: int) -> None:
    file = tmp_path / "code"
    file.write_bytes(bytes(size))

    def reply(text: str) -> dict[str, Any]:
        return {"func_code": {"file": text}, "x": 1}

    given = json.loads(await body_of(with_code(reply, file, size)))

    assert given["x"] == 1
    assert len(given["func_code"]["file"]) == (size + 2) // 3 * 4
    assert set(given["func_code"]["file"]) <= {"A", "="}


async def test_a_sent_file_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (PIECE + 1))
    file = (tmp_path / "file").open("rb")

    assert await body_of(whole_file(file, PIECE + 1, b"application/zip")) == b"x" * (PIECE + 1)
    assert file.closed
