from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from engine.code.unpacking import Limits, unpack, unpack_changed
from engine.errors import InvalidField
from tests.support.http_app import zipped


class FailingFile(io.BytesIO):
    """Package on a disk that fails at the read with this number, counted from 1."""

    def __init__(self, content: bytes, number: int) -> None:
        super().__init__(content)
        self._left = number

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_read_that_fails_is_no_fault_of_the_package(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        unpack(FailingFile(zipped(index__py="x = 1\n"), number), tmp_path, Limits())


@pytest.mark.parametrize("number", range(1, 5))
def test_a_read_that_fails_is_no_fault_of_a_package_that_is_unpacked_again(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        unpack_changed(FailingFile(zipped(index__py="x = 1\n"), number), tmp_path, Limits())


def test_a_package_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="not a sound zip file"):
        unpack(io.BytesIO(b"x" * 1000), tmp_path, Limits())
