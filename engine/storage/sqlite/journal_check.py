"""Check of a journal against its data directory, which runs before anything in the directory is changed.

A new journal is created only if the directory has neither a write-ahead log with transactions nor code packages. If a
lost journal were replaced by a new one, SQLite would delete the log, and the engine would remove all code packages,
because no function refers to them. An application id in the file's header distinguishes a journal from a database of
another program. The journal's name, which is also stored with the code packages, distinguishes it from another journal.

A torn end is normal after a crash, and damage before later commits is not, see ``wal``.

After a kill, the log's index ``journal.db-shm`` names the log's frames and salts, until a connection is opened. A power
cut may leave an older index, so that only a log with the same salts is compared.

For copies without index, the database has a row ``log`` in ``meta``: the first salt of the log that the file needs, or
0. Each checkpoint copies the salt, and the next commit has 0, as a file with all commits therefore has. SQLite adds 1
to the salt each time that the log begins anew.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from struct import Struct as Layout

from msgspec import Struct

from engine.errors import RESTORE, DataDirectoryUnusable
from engine.errors.files import file_errors
from engine.model.identity import Identity
from engine.storage.data_directory import check_entry
from engine.storage.sqlite.connection import not_opened
from engine.storage.sqlite.damage import marked
from engine.storage.sqlite.wal import FRAME, HEADER, Frames, LogPages

APPLICATION_ID = 0x666E6374  #: ASCII "fnct"; journals of older engines have none until their next start
_TABLES = frozenset({"meta", "invocation"})  #: tables of every journal
RECOVERED = "journal.db.recovered"  #: name of a recovered journal until the damaged one has another name


class _View(Struct, frozen=True, kw_only=True):
    """Contents of a database file that identify its program and its journal."""

    application: int
    version: int
    tables: frozenset[str]
    name: str  #: name of the journal; empty until its first start has set it
    mark: int  #: row ``log`` in ``meta``, see above


def check_journal(path: Path, packages_of: str | None) -> None:
    """Raise DataDirectoryUnusable if ``path`` is not the journal of its directory and must not be created there.

    ``packages_of`` is the journal's name that is stored with the code packages. An empty name means packages without a
    name, and None means that there are no packages. The function blocks the calling thread.
    """
    check_files(path)
    if damage := marked(path.parent):
        raise DataDirectoryUnusable(str(path.parent), damage)
    with file_errors(Path(f"{path}-wal")):
        problem = (lost_frames(path) or log_problem(path)) if _size(path) else ""
    if problem:
        raise DataDirectoryUnusable(f"{path}-wal", f"the write-ahead log cannot be used: {problem}; {RESTORE}")
    logged, name = is_logged(path), ""
    if _size(path):
        name = _name_of(path, logged)
    elif path.with_name(f"{path.name}.restoring").exists():
        problem = "a restore into it was not finished; empty the directory and restore again"
        raise DataDirectoryUnusable(str(path.parent), problem)
    elif path.with_name(RECOVERED).exists():
        problem = "a recovery of it was not finished; run `functiond recover` again"
        raise DataDirectoryUnusable(str(path.parent), problem)
    elif logged:
        raise _refused(path, "missing or empty, but journal.db-wal holds transactions")
    if packages_of is not None and not name:
        raise _refused(path, "missing or empty, but code/ holds packages")
    if packages_of and packages_of != name:
        raise _refused(path, f"this is journal {name}, but the packages in code/ belong to journal {packages_of}")


def is_logged(path: Path) -> bool:
    """Return whether the write-ahead log of a database has transactions."""
    return _size(Path(f"{path.resolve()}-wal")) > HEADER


def _name_of(path: Path, logged: bool) -> str:
    """Return the name of the journal, or an empty text for a database without tables.

    Raises DataDirectoryUnusable if the file cannot be opened or belongs to another program, or if the write-ahead log
    belongs to another database. ``logged`` means that the log has transactions.
    """
    name = ""
    try:
        for view in _views(path, logged):
            if view.application not in (0, APPLICATION_ID):
                raise _refused(path, f"a database of another program (application id {view.application})")
            if name not in ("", view.name):
                raise _refused(path, "journal.db-wal belongs to another database")
            name = view.name
    except sqlite3.DatabaseError as error:
        raise not_opened(path, error) from error
    if not view.tables >= _TABLES and (view.tables or view.version):
        if view.application == APPLICATION_ID:
            missing = ", ".join(sorted(_TABLES - view.tables))
            raise DataDirectoryUnusable(str(path), f"damaged, without the tables {missing}; {RESTORE}")
        tables = ", ".join(sorted(view.tables)[:5]) or "none"
        raise _refused(path, f"a database of another program (tables: {tables})")
    return name


def _views(path: Path, logged: bool) -> Iterator[_View]:
    """Yield the contents of the database without its write-ahead log, then with the log. Change neither file.

    Without transactions in the log (``logged`` is False), only one view is yielded.
    """
    alone = None
    with suppress(sqlite3.DatabaseError) if logged else nullcontext():
        alone = _view(path, "immutable=1")  # after an interrupted checkpoint, the file is readable only with its log
    if alone is not None:
        if problem := mark_problem(path, alone.mark):
            raise _refused(path, problem)
        yield alone
    if logged:
        yield _view(path, "mode=ro")


def _view(path: Path, mode: str) -> _View:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        [[application]] = database.execute("PRAGMA application_id")
        [[version]] = database.execute("PRAGMA user_version")
        tables = frozenset(name for [name] in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"))
        numbers = dict(database.execute("SELECT name, value FROM meta")) if tables >= _TABLES else {}
        name = _name(path, numbers["node"]) if "node" in numbers else ""
    return _View(application=application, version=version, tables=tables, name=name, mark=numbers.get("log", 0))


def _name(path: Path, node: object) -> str:
    if not isinstance(node, int):
        raise DataDirectoryUnusable(str(path), f"damaged, its number in the table meta is {node!r}; {RESTORE}")
    return Identity(node).name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _refused(path: Path, problem: str) -> DataDirectoryUnusable:
    advice = (
        "restore journal.db together with its journal.db-wal, or a backup with `functiond restore`,"
        " or start with an empty data directory"
    )
    return DataDirectoryUnusable(str(path), f"{problem}; {advice}")


def check_files(path: Path) -> None:
    """Raise DataDirectoryUnusable if the database, its write-ahead log, or the log's index cannot be opened as a file.

    SQLite's own errors do not tell a directory or a missing permission from other causes.
    """
    with file_errors(path):
        for end in ("", "-wal", "-shm"):
            check_entry(Path(f"{path}{end}"), stat.S_IFREG)


# See https://sqlite.org/walformat.html: version, validity, bytes of a page, frames and salts; then frames copied.
_INDEX, _VERSION = Layout("=I8xB1xHI12x8s8x48xI"), 3_007_000
_LAST_COMMIT = Layout("=16xI")  #: number of frames up to the last commit, in the index


def lost_frames(path: Path) -> str:
    """Return why the log of a database lacks frames that its index names, or an empty text."""
    file = Path(f"{path.resolve()}-shm")
    index = file.read_bytes()[: _INDEX.size] if file.exists() else b""
    if len(index) < _INDEX.size or index[:48] != index[48:96]:
        return ""
    version, valid, page, frames, salts, copied = _INDEX.unpack(index)
    if version != _VERSION or not valid or frames <= copied:
        return ""
    header, size = _log(path)
    if size <= HEADER:
        return f"it is missing or empty, but had {frames} frames"
    if header[16:24] == salts and size < HEADER + frames * (FRAME + page):
        return f"it ends before the last of its {frames} frames"
    return ""


def mark_problem(path: Path, mark: int) -> str:
    """Return why the log does not belong to a database whose file has ``mark``, or an empty text."""
    header, size = _log(path)
    if not mark or (size > HEADER and (int.from_bytes(header[16:20], "big") - mark) & 0xFFFFFFFF in (0, 1)):
        return ""
    state = "another one than" if size > HEADER else "missing or empty, but has commits"
    return f"journal.db-wal is {state} that journal.db needs"


def log_problem(path: Path) -> str:
    """Return why the write-ahead log at ``path`` must not be used, or an empty text. ``path`` is the database's.

    A log without transactions, or none at all, has no problem. The function blocks the calling thread. Raises OSError
    if the log cannot be read.
    """
    log = Path(f"{path.resolve()}-wal")
    if not log.exists():
        return ""
    with log.open("rb") as file:
        while file.read(1 << 20):  # SQLite takes a log that it cannot read for a damaged database
            pass
    try:
        last_commit = _last_commit(path)
    except sqlite3.DatabaseError:
        return ""  # the database itself cannot be read, which the next checks report
    behind = LogPages(log, last_commit + 1)
    if behind.problem or behind.frames is None or not last_commit:
        return behind.problem
    return _cut(behind.frames, path.stat().st_size, last_commit)


def _cut(frames: Frames, size: int, last_commit: int) -> str:
    """Return why the database cannot have ``size`` bytes, or an empty text. Later pages must be in the log."""
    pages, stored = frames.frame(last_commit).size, size // frames.page_size
    unused = (1 << 30) // frames.page_size + 1  # SQLite writes this page never
    logged = {frames.frame(number).page for number in range(1, last_commit + 1)} if stored < pages else ()
    lost = next((page for page in range(stored + 1, pages + 1) if not (page in logged or page == unused)), 0)
    words = "journal.db was cut, or the log is another one"
    return f"{words}: it ends after page {stored}, and page {lost} is not in the log" if lost else ""


def _last_commit(path: Path) -> int:
    """Return the number of frames up to the last commit that SQLite finds in the log."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        index = Path(f"{path.resolve()}-shm").read_bytes()[:48]
    return int(_LAST_COMMIT.unpack_from(index)[0])


def _log(path: Path) -> tuple[bytes, int]:
    """Return the header and the size of the log."""
    log = Path(f"{path.resolve()}-wal")
    if not log.exists():
        return b"", 0
    with log.open("rb") as file:
        return file.read(HEADER), file.seek(0, 2)
