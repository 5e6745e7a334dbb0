"""Watch of a folder, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchfiles import watch

_STEP = 100  #: milliseconds without a change that end a group of changes, such as the steps of an editor's save
_FIRST = 500  #: milliseconds until a watch without changes is known to have begun
_END = 1.0  #: seconds that the end waits for the thread, which may wait for its caller
_MISSING = 0.5  #: seconds between looks for a folder that was removed


@contextmanager
def watching(
    root: Path, *, recursive: bool, changed: Callable[[], None], failed: Callable[[str], None]
) -> Iterator[None]:
    """Call ``changed`` when the watch of a folder has begun, and after each group of changes, until the block ends.

    If the folder is replaced, as some tools do, the new one is watched. If it cannot be watched, ``failed`` gets the
    reason. Both are called in a thread.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(root, recursive, changed, failed, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END)


def _watch(
    root: Path, recursive: bool, changed: Callable[[], None], failed: Callable[[str], None], stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            inode, begun = root.stat().st_ino, False
            for changes in watch(
                root,
                watch_filter=None,
                step=_STEP,
                recursive=recursive,
                stop_event=stop,
                raise_interrupt=False,
                rust_timeout=_FIRST,
                yield_on_timeout=True,
            ):
                if changes or not begun:  # files may have changed before the watch began
                    begun = True
                    changed()
                if root.stat().st_ino != inode:
                    break
        except FileNotFoundError:
            stop.wait(_MISSING)
        except (OSError, RuntimeError) as error:
            failed(f"cannot watch {root}: {error}")
            return
