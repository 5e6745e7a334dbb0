"""Code packages: received, stored completely or not at all, and unpacked, with hostile zip files."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import io
import json
import os
import random
import stat
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.code import work_turns
from engine.code.receiving import REST_LIMIT, SHORT, CodeCutter, Upload
from engine.code.store import INLINE_LIMIT, PACKAGE_LIMIT, CodeSource, CodeStore
from engine.code.unpacking import Limits, unpack, unpack_changed
from engine.errors import (
    BadLink,
    CodeMissing,
    CodePackageTooLarge,
    CodeQuotaExceeded,
    DiskLow,
    FieldsTooLarge,
    InlineCodeTooLarge,
    InvalidField,
    NotJson,
    NotStored,
    ObjectMissing,
)
from engine.model import CodePackage
from plugins.obs.links import ObsLinks
from plugins.obs.options import ObsSettings
from tests.support.executing import dig
from tests.support.full_disk import full_disk
from tests.support.http_app import encoded, zipped

HANDLER = "index.handler"


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path / "code")


def inline(text: str) -> CodeSource:
    return CodeSource(kind="inline", file=encoded(text))


def package(content: bytes) -> CodeSource:
    return CodeSource(kind="zip", file=encoded(content), filename="code.zip")


def entry(name: str, content: bytes = b"x", *, mode: int = 0, method: int = zipfile.ZIP_STORED) -> bytes:
    """Build a zip file with one entry whose name and type no ordinary tool would write."""
    buffer = io.BytesIO()
    info = zipfile.ZipInfo("placeholder")
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


async def test_inline_source_becomes_the_file_that_the_handler_names(store: CodeStore) -> None:
    code = await store.add(inline("x = 1"), handler="jobs/main.run")

    assert (store.folder(code) / "jobs" / "main.py").read_text() == "x = 1"
    assert (code.kind, code.filename, code.size) == ("inline", "main.py", 5)


@pytest.mark.parametrize(
    ("runtime", "filename", "file", "mode"),
    [
        ("Python3.10", "index.js", "src/index.py", 0o644),
        ("Node.js18.15", "", "src/index.js", 0o644),
        ("Node.js18.15", "index.mjs", "src/index.mjs", 0o644),
        ("Custom", "", "bootstrap", 0o755),
    ],
)
async def test_inline_source_is_a_file_of_its_runtime(
    store: CodeStore, runtime: str, filename: str, file: str, mode: int
) -> None:
    source = CodeSource(kind="inline", file=encoded("text"), filename=filename)

    code = await store.add(source, handler="src/index.handler", runtime=runtime)

    written = store.folder(code) / file
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("text", mode)


async def test_a_dot_in_a_module_is_a_folder_to_python_only(store: CodeStore) -> None:
    runtimes = {"Python3.10": "jobs/main.py", "Node.js18.15": "jobs.main.js"}

    codes = {
        file: await store.add(inline("1"), handler="jobs.main.run", runtime=name) for name, file in runtimes.items()
    }

    assert all((store.folder(code) / file).is_file() for file, code in codes.items())


@pytest.mark.parametrize("kind", ["inline", "zip"])
@pytest.mark.parametrize("runtime", ["Custom", "http", "Lambda"])
async def test_a_bootstrap_left_out_becomes_a_program(store: CodeStore, runtime: str, kind: str) -> None:
    code = await store.add(CodeSource(kind=kind), handler="-", runtime=runtime)

    written = store.folder(code) / "bootstrap"
    assert written.read_text().startswith("#!/usr/bin/env python3\n")
    assert written.stat().st_mode & 0o777 == 0o755


async def test_inline_code_left_out_becomes_a_function_that_runs(store: CodeStore) -> None:
    python = await store.add(inline(""), handler="index.start")
    node = await store.add(inline(""), handler="index.start", runtime="Node.js18.15")

    names: dict[str, object] = {}
    exec((store.folder(python) / "index.py").read_text(), names)
    assert callable(names["start"])
    assert (store.folder(node) / "index.js").read_text().startswith("exports.start = async (event, context) =>")


async def test_the_same_source_for_another_file_is_another_package(store: CodeStore) -> None:
    first = await store.add(inline("x = 1"), handler="a.run")
    second = await store.add(inline("x = 1"), handler="b.run")

    assert first.sha256 != second.sha256
    assert (store.folder(second) / "b.py").exists()


async def test_a_package_is_unpacked_and_kept_as_it_came(store: CodeStore) -> None:
    content = zipped(index__py="a = 1", lib__txt="b")

    code = await store.add(package(content), handler=HANDLER)

    assert (store.folder(code) / "index.py").read_text() == "a = 1"
    assert await store.original(code) == content
    assert len(code.digest) == 128


async def test_the_executable_bit_survives_and_nothing_else_of_the_mode(store: CodeStore) -> None:
    content = entry("bootstrap", mode=stat.S_IFREG | 0o4777)

    code = await store.add(package(content), handler=HANDLER)

    assert stat.S_IMODE((store.folder(code) / "bootstrap").stat().st_mode) == 0o755


async def test_a_name_in_utf8_without_the_flag_is_read_as_utf8(store: CodeStore) -> None:
    content = entry("zaehler", b"1").replace(b"zaehler", "zähler".encode())

    code = await store.add(package(content), handler=HANDLER)

    assert (store.folder(code) / "zähler").exists()


NAMES = ["../evil", "a/../../evil", "/etc/evil", "C:evil", "a\\b", "a//b", "a\nb", "x" * 256, "/".join("d" * 70), ".."]
TYPES = {"link": stat.S_IFLNK, "tty": stat.S_IFCHR, "disk": stat.S_IFBLK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"PK hello", "not a sound zip file", id="no zip file"),
        pytest.param(entry("nam?.py").replace(b"nam?", b"nam\xff"), "UTF-8", id="a name that is not UTF-8"),
        *(pytest.param(entry(name), "name", id=f"the name {name[:20]!r}") for name in NAMES),
        *(
            pytest.param(entry(name, mode=mode | 0o777), "neither a file nor a folder", id=f"the type {name}")
            for name, mode in TYPES.items()
        ),
        pytest.param(entry("a", method=zipfile.ZIP_BZIP2), "deflate", id="bzip2, which needs unbounded memory"),
        pytest.param(entry("a", method=zipfile.ZIP_LZMA), "deflate", id="LZMA, which needs unbounded memory"),
    ],
)
async def test_a_package_that_cannot_be_unpacked_is_refused(store: CodeStore, content: bytes, problem: str) -> None:
    with pytest.raises(InvalidField, match=problem):
        await store.add(package(content), handler=HANDLER)


@pytest.mark.parametrize("names", [("a", "./a"), ("a", "a/b"), ("a/b", "a")])
def test_two_entries_for_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    content = zipped(**dict.fromkeys(names, "x"))

    with pytest.raises(InvalidField, match="zip package"):
        unpack(io.BytesIO(content), tmp_path, Limits())


def test_a_bomb_is_stopped_by_the_bytes_that_come_out(tmp_path: Path) -> None:
    bomb = entry("zeros", bytes(1 << 20), method=zipfile.ZIP_DEFLATED)
    lying = _claim_size(bomb, 10)

    with pytest.raises(InvalidField, match="more than 65536 bytes"):
        unpack(io.BytesIO(bomb), tmp_path / "a", _made(tmp_path / "a", Limits(unpacked=65536)))
    with pytest.raises(InvalidField):
        unpack(io.BytesIO(lying), tmp_path / "b", _made(tmp_path / "b", Limits(unpacked=65536)))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1 << 20


def test_a_ratio_no_code_has_is_refused(tmp_path: Path) -> None:
    bomb = entry("zeros", bytes(1 << 20), method=zipfile.ZIP_DEFLATED)

    with pytest.raises(InvalidField, match="100 times"):
        unpack(io.BytesIO(bomb), tmp_path, Limits(ratio_from=1000))


@pytest.mark.parametrize("block", [5, 1 << 18])
def test_too_many_entries_are_refused_before_the_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("engine.code.unpacking._BLOCK", block)  # makes entries span several blocks, too
    content = zipped(**{f"f{number}": "" for number in range(20)})

    with pytest.raises(InvalidField, match="more than 19 entries"):
        unpack(io.BytesIO(content), tmp_path, Limits(entries=19))
    unpack(io.BytesIO(content), tmp_path, Limits(entries=20))


@settings(max_examples=150)
@given(position=st.integers(0, 400), replacement=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, replacement: bytes
) -> None:
    content = bytearray(zipped(index__py="a = 1\n" * 50, other__txt="b" * 99))
    content[position : position + len(replacement)] = replacement
    folder = tmp_path_factory.mktemp("fuzz") / "inside"
    folder.mkdir()

    with suppress(InvalidField):
        unpack(io.BytesIO(content), folder, Limits(unpacked=10_000))

    assert [path.name for path in folder.parent.iterdir()] == ["inside"]


@pytest.mark.parametrize("text", ["not base64!", "abc", "é", "eA==eA==", "eA==" + "\n" * (1 << 20) + "eA=="])
async def test_text_that_is_no_base64_is_refused(store: CodeStore, text: str) -> None:
    with pytest.raises(InvalidField, match="base64"):
        await store.add(CodeSource(kind="inline", file=text), handler=HANDLER)


async def test_base64_in_lines_is_taken(store: CodeStore) -> None:
    code = await store.add(CodeSource(kind="inline", file="eCA9\r\nIDE=\n"), handler=HANDLER)

    assert await store.original(code) == b"x = 1"


async def test_base64_of_any_length_is_the_same_in_steps(store: CodeStore) -> None:
    content = entry("blob", os.urandom((1 << 20) + 1))
    text = encoded(content)
    lines = "\r\n".join(text[start : start + 77] for start in range(0, len(text), 77))

    code = await store.add(CodeSource(kind="zip", file=lines), handler=HANDLER)

    assert await store.original(code) == content


async def test_limits_of_size_hold_to_the_byte(store: CodeStore) -> None:
    await store.add(inline("#" * INLINE_LIMIT), handler=HANDLER)

    with pytest.raises(InlineCodeTooLarge):
        await store.add(inline("#" * (INLINE_LIMIT + 1)), handler=HANDLER)
    with pytest.raises(CodePackageTooLarge):
        await store.add(package(bytes(PACKAGE_LIMIT + 1)), handler=HANDLER)


async def test_a_package_for_no_handler_and_kinds_that_do_not_run_here_are_refused(store: CodeStore) -> None:
    with pytest.raises(CodeMissing):
        await store.add(CodeSource(kind="zip"), handler="")
    with pytest.raises(InvalidField, match="code_type"):
        await store.add(CodeSource(kind="jar"), handler=HANDLER)
    with pytest.raises(InvalidField, match=r"code_type .* set plugins\.obs\.endpoint or plugins\.obs\.folder"):
        await store.add(linked(), handler=HANDLER)


LINK = "obs://bucket/code.zip"


def behind_link(folder: Path, content: bytes) -> ObsLinks:
    """Return a reader of a store in this folder, in which the link leads to the content."""
    (folder / "bucket").mkdir(parents=True)
    (folder / "bucket" / "code.zip").write_bytes(content)
    return ObsLinks(ObsSettings(folder=str(folder)))


def linked(url: str = LINK) -> CodeSource:
    return CodeSource(kind="obs", url=url)


async def test_a_link_leads_to_the_same_package_as_an_upload(tmp_path: Path) -> None:
    content = zipped(index__py="a = 1")
    store = CodeStore(tmp_path / "code", links=behind_link(tmp_path / "objects", content))

    code = await store.add(linked(), handler=HANDLER)
    uploaded = await store.add(package(content), handler=HANDLER)

    assert (store.folder(code) / "index.py").read_text() == "a = 1"
    assert (code.kind, code.filename, code.url) == ("obs", "code.zip", LINK)
    assert (code.sha256, code.digest, code.size) == (uploaded.sha256, uploaded.digest, uploaded.size)
    assert await store.md5(code) == hashlib.md5(content).hexdigest()


async def test_a_package_behind_a_link_may_be_larger_than_an_upload_but_not_endless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = entry("large", bytes(1000))
    monkeypatch.setattr("engine.code.store.PACKAGE_LIMIT", 1000)
    monkeypatch.setattr("engine.code.store.LINKED_LIMIT", len(content))

    store = CodeStore(tmp_path / "code", links=behind_link(tmp_path / "objects", content))
    code = await store.add(linked(), handler=HANDLER)
    with pytest.raises(CodePackageTooLarge):
        await store.original(code)
    larger = behind_link(tmp_path / "larger", content + b"x")
    with pytest.raises(CodePackageTooLarge):
        await CodeStore(tmp_path / "other", links=larger).add(linked(), handler=HANDLER)

    assert list((tmp_path / "other").iterdir()) == []


async def test_links_that_lead_nowhere_leave_nothing_behind(tmp_path: Path) -> None:
    store = CodeStore(tmp_path / "code", links=behind_link(tmp_path / "objects", b"no zip"))

    with pytest.raises(ObjectMissing):
        await store.add(linked("obs://bucket/other"), handler=HANDLER)
    with pytest.raises(BadLink):
        await store.add(linked(""), handler=HANDLER)
    with pytest.raises(InvalidField, match="not a sound zip file"):
        await store.add(linked(), handler=HANDLER)

    assert list((tmp_path / "code").iterdir()) == []


async def test_a_package_that_is_not_admitted_leaves_nothing_behind(store: CodeStore, tmp_path: Path) -> None:
    content = zipped(index__py="a = 1")
    seen: list[tuple[str, int]] = []

    def refuse(code: CodePackage) -> None:
        seen.append((code.sha256, code.size))
        raise CodeQuotaExceeded(1, code.size, 1)

    with pytest.raises(CodeQuotaExceeded):
        await store.add(package(content), handler=HANDLER, admit=refuse)

    assert seen == [(hashlib.sha256(content).hexdigest(), len(content))]
    assert list((tmp_path / "code").iterdir()) == []


async def test_a_refused_package_leaves_nothing_behind(store: CodeStore, tmp_path: Path) -> None:
    broken = zipped(first="fine", second="damaged").replace(b"second", b"../ond")

    with pytest.raises(InvalidField):
        await store.add(package(broken), handler=HANDLER)

    assert list((tmp_path / "code").iterdir()) == []


async def test_a_failed_write_is_an_error_of_the_engine_and_not_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("in the way")

    with pytest.raises(NotStored):
        await CodeStore(tmp_path / "code").add(inline("x"), handler=HANDLER)


async def test_a_sweep_keeps_what_is_referenced_and_takes_the_rest(store: CodeStore, tmp_path: Path) -> None:
    kept = await store.add(inline("kept"), handler=HANDLER)
    gone = await store.add(inline("gone"), handler=HANDLER)
    (tmp_path / "code" / ".new-torn").mkdir()

    removed = await store.sweep({kept.sha256})

    assert removed == 2
    assert sorted(os.listdir(tmp_path / "code")) == sorted([kept.sha256, f"{kept.sha256}.package"])
    assert not store.folder(gone).exists()


async def test_a_sweep_takes_folders_however_deep(store: CodeStore, tmp_path: Path) -> None:
    gone = await store.add(inline("gone"), handler=HANDLER)
    dig(store.folder(gone))

    assert await store.sweep(()) == 1
    assert os.listdir(tmp_path / "code") == []


def _made(folder: Path, limits: Limits) -> Limits:
    folder.mkdir()
    return limits


def _claim_size(content: bytes, size: int) -> bytes:
    """Return the archive with ``size`` as unpacked size in both headers of its entry."""
    central = content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[22:26] = changed[central + 24 : central + 28] = struct.pack("<I", size)
    return bytes(changed)


@pytest.mark.parametrize("source", [inline("x"), package(entry("index.py")), linked()])
async def test_code_does_not_take_what_the_journal_needs_of_the_disk(tmp_path: Path, source: CodeSource) -> None:
    store = CodeStore(
        tmp_path / "code", Limits(keep_free=1 << 60), behind_link(tmp_path / "objects", entry("index.py"))
    )

    with pytest.raises(DiskLow):
        await store.add(source, handler=HANDLER)

    assert not list((tmp_path / "code").iterdir())


def test_a_package_stops_unpacking_when_the_disk_gets_low(tmp_path: Path) -> None:
    with pytest.raises(DiskLow):
        unpack(io.BytesIO(entry("index.py")), tmp_path, Limits(keep_free=1 << 60))


async def test_packages_with_many_files_of_one_project_leave_turns_to_another(
    store: CodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_turns, "TURN", 0.0)
    unpacking, stored = anyio.Event(), list[str]()
    give_way = store._turns.give_way

    def begun() -> None:
        anyio.from_thread.run_sync(unpacking.set)
        give_way()

    monkeypatch.setattr(store._turns, "give_way", begun)

    async def add(project: str, content: bytes) -> None:
        await store.add(package(content), project, handler=HANDLER)
        stored.append(project)

    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(add, "a", zipped(**{f"f{number}_{n}": "" for n in range(100)}))
        await unpacking.wait()
        tasks.start_soon(add, "b", entry("index.py"))

    assert stored == ["b", "a", "a"]


async def test_work_goes_on_with_its_turns_when_its_caller_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_turns, "TURN", 0.0)
    turns, begun, cancelled, ended = work_turns.WorkTurns(), anyio.Event(), threading.Event(), list[str]()

    def work() -> None:
        anyio.from_thread.run_sync(begun.set)
        assert cancelled.wait(30)
        turns.give_way()
        ended.append("work")

    async def cancel() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turns.run, work)
            await begun.wait()
            tasks.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.05, cancelled.set)  # the cancellation has been delivered by then

    done, _ = await asyncio.wait([asyncio.ensure_future(cancel())], timeout=10)

    assert done
    assert ended == ["work"]


async def test_two_projects_store_the_same_package_at_once(
    store: CodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_turns, "TURN", 0.0)
    content, packages = package(zipped(**{f"f{n}": "" for n in range(20)})), list[CodePackage]()

    async def add(project: str) -> None:
        packages.append(await store.add(content, project, handler=HANDLER))

    async with anyio.create_task_group() as tasks:
        for project in "ab":
            tasks.start_soon(add, project)

    assert packages[0].sha256 == packages[1].sha256
    assert len(os.listdir(store.folder(packages[0]))) == 20
    assert not [name for name in os.listdir(tmp_path / "code") if name.startswith(".new")]


# --- receiving -----------------------------------------------------------------------------------------------

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

    result = decoded(cutter, body, size)

    assert result == {**fields, "func_code": {"link": "", "file": cutter.word}}
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


# --- unpacking -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("unpacking", "number"), [*((unpack, n) for n in range(1, 8)), *((unpack_changed, n) for n in range(1, 5))]
)
def test_a_read_that_fails_is_no_fault_of_the_package(tmp_path: Path, unpacking: Any, number: int) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        unpacking(FailingFile(zipped(index__py="x = 1\n"), number), tmp_path, Limits())


def test_a_package_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="not a sound zip file"):
        unpack(io.BytesIO(b"x" * 1000), tmp_path, Limits())
