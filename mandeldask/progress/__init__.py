"""Progress on stderr: a bar that is replaced on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mandeldask.text import COLUMN, duration, fact, printable

PLAIN_SECONDS = 5.0  # between two plain lines
WIDTH = 34  # of the bar, at most
LEAST_BAR = 10  # columns, with the margins around it
State = tuple[int, int, str]  # done, in total (0 where that is not known), and what to say


class Bar:
    """A bar on stderr with a few words; a context, at whose end it is gone. A quiet one prints nothing at all.

    It appears with the first `show`, or with `start`.
    """

    def __init__(self, label: str = "", *, quiet: bool = False, console: Console | None = None) -> None:
        self.label = label
        self.console = console or Console(stderr=True, highlight=False, quiet=quiet)
        self.state: State = (0, 0, "")
        self.begun = 0.0
        self._drawing: ExitStack | None = None  # what ends with the bar, while there is one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def look(self) -> State:
        """The state, asked for whenever the bar is drawn."""
        return self.state

    def below(self) -> RenderableType | None:
        """What is drawn under the bar."""
        return None

    def show(self, done: int, total: int, text: str) -> None:
        self.state = done, total, text
        if not self._drawing:
            self.start()
            if not self.console.is_terminal:
                self.line(self.label, text)

    def count(self, done: int, total: int) -> None:
        """Show how many are done, and how long the others will take at the rate since the first."""
        if done <= 1:  # the first may take longer: it gets all ready
            self.begun = time.monotonic()
        seconds = (time.monotonic() - self.begun) / (done - 1) * (total - done) if done > 1 else 0.0
        left = f", {duration(round(seconds))} left" if seconds else ""
        self.show(done, total, f"{done}/{total}{left}")

    def line(self, label: str, text: str) -> None:
        """Print a fact: a label in its column, and what there is to say; one line where it is not a terminal."""
        line = Text(fact(label, printable(text), self.console.width if self.console.is_terminal else None))
        line.stylize("bold" if self.console.is_terminal else "", 0, COLUMN)
        self.console.print(line, soft_wrap=True)

    def start(self) -> None:
        """Begin to draw; nothing where that is done already. What was stopped can be started again."""
        if self._drawing or self.console.quiet:
            return
        self._drawing, self.begun = ExitStack(), time.monotonic()
        if self.console.is_terminal:
            live = Live(
                get_renderable=self._drawn,
                console=self.console,
                transient=True,
                redirect_stdout=False,  # which may be a file
            )
            live.start(refresh=True)
            self._drawing.callback(live.stop)
        else:
            ended = threading.Event()
            threading.Thread(target=self._plain_lines, args=(ended,), name="progress", daemon=True).start()
            self._drawing.callback(ended.set)

    def stop(self) -> None:
        """Take the bar away; a second time does nothing."""
        if self._drawing:
            self._drawing.close()
        self._drawing = None

    def _plain_lines(self, ended: threading.Event) -> None:
        while not ended.wait(PLAIN_SECONDS):
            self.line(self.label, self.look()[2])

    def _drawn(self) -> RenderableType:
        below = self.below()
        return self._row() if below is None else Group("", self._row(), "", below)

    def _row(self) -> RenderableType:
        done, total, text = self.look()
        if not total:
            text = f"{duration(round(time.monotonic() - self.begun))}  {text}"
        words = printable(text).split(", ")
        while len(", ".join(words)) > self.console.width - len(self.label) - LEAST_BAR and len(words) > 2:
            del words[1]  # first and last are how far it is, and how long it will take
        row = Table.grid(Column(no_wrap=True), Column(max_width=WIDTH), Column(no_wrap=True), padding=(0, 2, 0, 0))
        row.add_row(f"  {self.label}", ProgressBar(total, done) if total else "", Text(", ".join(words)))
        return row
