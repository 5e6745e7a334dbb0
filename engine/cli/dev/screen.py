"""Output of ``functiond dev``: lines, and on a terminal with keys a menu below them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.live import Live
from rich.text import Text

from engine.cli.dev.following import Dropped, Item, LogLine, Lost
from engine.cli.output import Output
from engine.http.live_logs import AttemptEnd
from engine.model.text import visible

_LONGEST = 300  #: characters of a result
_STYLES = {"SUCCESS": "green", "FAIL": "red", "error": "red", "stderr": "yellow", "engine": "yellow"}
_ID = 36  #: characters of a request id


class Screen:
    def __init__(self) -> None:
        self._output = Output()
        self._live = Live(console=self._output, auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty())

    @contextmanager
    def shown(self, menu: Text) -> Iterator[None]:
        """Show a menu below all lines until the block ends."""
        self.set_menu(menu)
        self._live.start(refresh=True)
        try:
            if self._output.is_dumb_terminal:
                self._output.print(menu)
            yield
        finally:
            _discard_output_to_lost_terminal()
            self._live.stop()

    def set_menu(self, menu: Text) -> None:
        self._live.update(menu, refresh=self._live.is_started)

    @contextmanager
    def without_menu(self) -> Iterator[None]:
        """Hide the menu until the block ends, so that others can write."""
        if not self._live.is_started:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def note(self, text: str, style: str = "dim") -> None:
        self._output.print(Text(visible(text, "\n"), style=style))

    def sent(self, label: str, request_id: str) -> None:
        self._line(_clock(None), request_id, Text.assemble(("sent ", "bold"), label))

    def show(self, function: str, item: Item) -> None:
        """Print an item of the log of a function. ``function`` is empty if there is only one."""
        name = f"{function} " if function else ""
        match item:
            case LogLine():
                text = Text(f"{name}{item.stream} ", style=_STYLES.get(item.stream, "dim"))
                text.append(visible(_own_text(item), "\t"), style="default")
                self._line(_clock(item.time), item.request_id, text)
            case AttemptEnd():
                self._line(_clock(None), item.request_id, _end(name, item))
            case Dropped():
                self.note(f"{name}{item.lines} lines were dropped: written too fast", "yellow")
            case Lost():
                self.note(f"{name}cannot read the log: {item.reason}; trying again", "yellow")

    def _line(self, time: str, request_id: str, text: Text) -> None:
        self._output.print(Text.assemble((f"{time} {request_id:<{_ID}} ", "dim"), text))


def _discard_output_to_lost_terminal() -> None:
    """Redirect output to the null device if its terminal was closed, because later writes would fail."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def menu_of(keys: dict[str, str]) -> Text:
    """Return a menu of keys and their meanings."""
    shown = (Text.assemble((key, "bold cyan"), f"\N{NO-BREAK SPACE}{meaning}") for key, meaning in keys.items())
    return Text("  ", no_wrap=False, overflow="fold").join(shown)


def _end(name: str, end: AttemptEnd) -> Text:
    tries = f", attempt {end.attempt}" if end.attempt > 1 else ""
    text = Text.assemble(name, (end.status, _STYLES.get(end.status, "")), f" {_duration(end.seconds)}")
    text.append(f" ({end.source}{tries})", style="dim")
    told = (end.result or "") if end.status == "SUCCESS" else f"{end.error_code} {end.error_message}"
    if told:
        shown = visible(told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…", "\t")
        text.append(f" {shown}")
    return text


def _own_text(line: LogLine) -> str:
    """Return the text of a line without the time and the request id that the function's logger writes."""
    head, mark, rest = line.text.partition(f"Z {line.request_id} ")
    return rest if mark and line.stream == "logger" and " " not in head else line.text


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _clock(time: str | None) -> str:
    """Return the local time of day of a time of the API, or of now."""
    moment = datetime.fromisoformat(time) if time else datetime.now()
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3]
