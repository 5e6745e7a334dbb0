from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.code.receiving import REST_LIMIT, SHORT, CodeCutter, Upload
from engine.errors import FieldsTooLarge, NotJson
from tests.support.full_disk import full_disk

LIMIT = 4 << 20
CODE = random.Random(1).randbytes(3 * SHORT)
TEXT = base64.b64encode(CODE).decode()


@pytest.fixture
def cutter(tmp_path: Path) -> Iterator[CodeCutter]:
    cutter = CodeCutter(tmp_path, "file", LIMIT)
    yield cutter
    cutter.close()


def read(cutter: CodeCutter, body: bytes, size: int) -> bytes:
    for start in range(0, len(body), size):
        cutter.feed(body[start : start + size])
    return cutter.end()


def decoded(cutter: CodeCutter, body: bytes, size: int = 1000) -> Any:
    return json.loads(read(cutter, body, size))


def content(cutter: CodeCutter) -> bytes:
    assert cutter.code is not None
    assert cutter.code.problem == ""
    assert cutter.code.size == cutter.code.file.stat().st_size
    return cutter.code.file.read_bytes()


@pytest.mark.parametrize("size", [1 << 20, 70_000, 4096, 61])
@pytest.mark.parametrize("form", [lambda text: text, lambda text: text.replace("/", r"\/").replace("A", r"\u0041")])
def test_the_code_is_decoded_to_a_file_and_a_word_stands_for_it(cutter: CodeCutter, form: Any, size: int) -> None:
    fields = {"func_name": 'a "file": b\\', "func_code": {"link": "", "file": "?"}, "code_type": "zip"}
    body = json.dumps(fields).replace("?", form(TEXT)).encode()

    found = decoded(cutter, body, size)

    assert found == {**fields, "func_code": {"link": "", "file": cutter.word}}
    assert content(cutter) == CODE


@pytest.mark.parametrize("size", [1 << 20, 1023, 61])
def test_a_body_without_long_code_stays_as_it_is(cutter: CodeCutter, size: int) -> None:
    body = json.dumps({"file": TEXT[:SHORT], "x": [{"file": ""}, {"file": r'"\\\"'}], "y": "z" * SHORT * 2}).encode()

    assert read(cutter, body, size) == body
    assert cutter.code is None


def test_line_breaks_are_allowed_as_escapes(cutter: CodeCutter) -> None:
    lines = "\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76))

    decoded(cutter, json.dumps({"file": lines}).encode())

    assert content(cutter) == CODE


def test_spaces_around_the_colon_may_be_anywhere(cutter: CodeCutter) -> None:
    decoded(cutter, b'{ "x" : 1 ,\n "file"\t:\r\n "%b" }' % TEXT.encode(), 5)

    assert content(cutter) == CODE


@pytest.mark.parametrize(
    "key",
    [r"x\"file", r"file\"", "files", r"\u0066ile", "\\\\file"],
)
def test_other_keys_keep_their_texts(cutter: CodeCutter, key: str) -> None:
    body = b'{"%b": "%b"}' % (key.encode(), TEXT.encode())

    assert read(cutter, body, 4096) == body


def test_a_key_within_a_text_is_no_key(cutter: CodeCutter) -> None:
    body = json.dumps({"x": '{"file": "' + TEXT}).encode()

    assert read(cutter, body, 4096) == body


@pytest.mark.parametrize(
    ("text", "problem"),
    [(TEXT[:-1], "Incorrect padding"), ("*" + TEXT, "Only base64 data is allowed"), ("TQ==" + TEXT, "padding")],
)
def test_code_that_is_not_base64_is_reported_with_its_start(cutter: CodeCutter, text: str, problem: str) -> None:
    decoded(cutter, json.dumps({"file": text}).encode())

    assert cutter.code is not None
    assert problem in cutter.code.problem
    assert cutter.code.start == text[:100]


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) - 1])
def test_code_beyond_the_limit_is_dropped_and_reported_by_its_size(cutter: CodeCutter, size: int) -> None:
    text = base64.b64encode(bytes(2 * LIMIT)).decode()

    decoded(cutter, json.dumps({"file": text}).encode(), size)

    assert cutter.code is not None
    assert cutter.code.problem == ""
    assert LIMIT < cutter.code.size < LIMIT + (1 << 16)


@pytest.mark.parametrize("bad", [b"\x01", b"\\q", b"\\u12x4", b"\n"])
def test_code_that_is_no_text_of_json_is_not_json(cutter: CodeCutter, bad: bytes) -> None:
    with pytest.raises(NotJson):
        read(cutter, b'{"file": "%b%b"}' % (TEXT.encode(), bad), 4096)


@pytest.mark.parametrize("cut", [1, 2, 5000])
def test_a_body_that_ends_within_the_code_is_not_json(cutter: CodeCutter, cut: int) -> None:
    rest = read(cutter, b'{"file": "%b"}' % TEXT.encode()[:-cut], 4096)[:-2]

    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(rest)


@pytest.mark.parametrize("block", [b"[", b'{"":', b"[],", b'"\\"",', b'"', b"x", b'{"file":"', b"\xff", b"\\"])
def test_other_fields_are_bounded(cutter: CodeCutter, block: bytes) -> None:
    body = block * (2 * REST_LIMIT // len(block))

    with pytest.raises(FieldsTooLarge):
        read(cutter, body, 1 << 16)


def test_one_text_of_code_is_allowed(cutter: CodeCutter) -> None:
    with pytest.raises(FieldsTooLarge):
        read(cutter, json.dumps([{"file": TEXT}, {"file": TEXT}]).encode(), 4096)


# --- whole uploads -------------------------------------------------------------------------------------------


def entries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


class Counted(bytes):
    """Data that counts the bytes which are copied from it."""

    copied = 0

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return self._counted(part) if isinstance(index, slice) else part

    def __radd__(self, other: bytes) -> bytes:
        return self._counted(other + bytes(self))

    def replace(self, *arguments: Any) -> bytes:
        return self._counted(super().replace(*arguments))

    @staticmethod
    def _counted(part: bytes) -> bytes:
        Counted.copied += len(part)
        return Counted(part)


def test_many_short_texts_are_read_without_copies_of_the_rest(cutter: CodeCutter) -> None:
    body, Counted.copied = Counted(b'{"file":"' * 10_000), 0

    assert read(cutter, body, len(body)) == body
    assert Counted.copied < 10 * len(body)


async def test_an_aborted_upload_leaves_nothing_on_a_full_disk(tmp_path: Path) -> None:
    upload = Upload(tmp_path, anyio.CapacityLimiter(1), keep_free=0, field="file", limit=1 << 20)
    await upload.feed(b'{"file": "' + b"A" * (2 * SHORT))
    assert entries(tmp_path)

    with full_disk():
        await upload.close()

    assert entries(tmp_path) == []
