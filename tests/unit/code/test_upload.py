from __future__ import annotations

from pathlib import Path

import anyio

from engine.code.receiving import SHORT
from engine.code.upload import Upload
from tests.support.full_disk import full_disk


def entries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


async def test_an_aborted_upload_leaves_nothing_on_a_full_disk(tmp_path: Path) -> None:
    upload = Upload(tmp_path, anyio.CapacityLimiter(1), keep_free=0, field="file", limit=1 << 20)
    await upload.feed(b'{"file": "' + b"A" * (2 * SHORT))
    assert entries(tmp_path)

    with full_disk():
        await upload.close()

    assert entries(tmp_path) == []
