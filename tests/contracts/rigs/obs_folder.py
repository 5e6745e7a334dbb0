"""OBS in a folder: writer of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from tests.contracts.rigs import base


class Rig(base.Rig):
    kind = "OBS"
    may_disable = False
    bad = (
        ({"bucket": ""}, "bucket"),
        ({"events": ["Odd"]}, "events"),
        ({"events": ["Put", "ObjectCreated"]}, "events"),
    )
    change: ClassVar[dict[str, Any]] = {"name": "other"}
    breakable = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.obs.folder": str(folder / "objects")}
        (self._bucket / "in").mkdir(parents=True)

    @property
    def _bucket(self) -> Path:
        return self.folder / "objects" / "photos"

    def options(self) -> dict[str, Any]:
        return {"bucket": "photos", "events": ["ObjectCreated"], "prefix": "in/"}

    async def send(self, target: base.Target, number: int) -> bool:
        made = self.folder / "made"
        made.write_text(str(number))
        made.rename(self._bucket / "in" / str(number))
        return True

    def numbers(self, event: Any) -> list[int]:
        return [int(unquote(record["s3"]["object"]["key"]).removeprefix("in/")) for record in event["Records"]]

    async def breaks(self) -> None:
        self._bucket.rename(self.folder / "away")

    async def mends(self) -> None:
        (self.folder / "away").rename(self._bucket)
