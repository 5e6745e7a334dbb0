from __future__ import annotations

from pathlib import Path

from engine.http.spool import IN_MEMORY, Spool, SpoolSpace
from tests.support.full_disk import full_disk


async def test_a_full_disk_does_not_affect_the_end_of_a_request(tmp_path: Path) -> None:
    spool = Spool(SpoolSpace(tmp_path), "192.0.2.1", proven=False)
    await spool.write(b"x" * (IN_MEMORY + 1))
    await spool.write(b"x")

    with full_disk():
        await spool.close()
