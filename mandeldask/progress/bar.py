"""The one way in which progress is drawn: a bar that is replaced on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mandeldask.text import duration, printable

PLAIN_SECONDS = 10.0  # between two plain lines
REFRESH_RATE = 4  # a second
WIDTH = 34  # of the bar, at most
State = tuple[int, int, str]  # done, in total (0 where that is not known), and what to say


class Bar:
    """A bar on stderr with a few words; a context, at whose end it is gone.

    It appears with the first `show`, or with `start` where `look` gives its state whenever it is drawn. `below` gives
    what is drawn under it, `seconds` are between two lines where there is no terminal.
    """

    def __init__(
        self,
        label: str = "",
        *,
        seconds: float = PLAIN_SECONDS,
        console: Console | None = None,
        look: Callable[[], State] | None = None,
        below: Callable[[], RenderableType | None] = lambda: None,
    ) -> None:
        self.label, self.seconds, self.below = label, seconds, below
        self.console = console or Console(stderr=True, highlight=False)
        self.look = look or (lambda: self.state)
        self.state: State = (0, 0, "")
        self.begun = 0.0
        self._started = False
        self._stop = threading.Event()
        self._live = Live(
            get_renderable=self._drawn,
            console=self.console,
            refresh_per_second=REFRESH_RATE,
            transient=True,
            redirect_stdout=False,  # which may be a file
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def show(self, done: int, total: int, text: str) -> None:
        """Show how far it is."""
        self.state = done, total, text
        if not self._started:
            self.start()
            if not self.console.is_terminal:
                self.say(text, self.label)

    def count(self, done: int, total: int) -> None:
        """Show how many are done, and how long the others will take at the rate since the first."""
        if done <= 1:  # the first may take longer: it gets all ready
            self.begun = time.monotonic()
        seconds = (time.monotonic() - self.begun) / (done - 1) * (total - done) if done > 1 else 0.0
        left = f", {duration(round(seconds))} left" if seconds else ""
        self.show(done, total, f"{done}/{total}{left}")

    def say(self, text: str, label: str = "") -> None:
        """Print one line: a label in its column, and what there is to say."""
        line = Text(f"  {label:<10} ", style="bold" if self.console.is_terminal else "")
        line.append(printable(text), style="not bold")
        self.console.print(line, soft_wrap=True)

    def start(self) -> None:
        """Begin to draw; nothing where that is done already. What was stopped can be started again."""
        if self._started:
            return
        self._started, self._stop, self.begun = True, threading.Event(), time.monotonic()
        if self.console.is_terminal:
            self._live.start(refresh=True)
        else:
            threading.Thread(target=self._plain_lines, args=(self._stop,), name="progress", daemon=True).start()

    def stop(self) -> None:
        """Take the bar away; a second time does nothing."""
        self._stop.set()
        self._live.stop()
        self._started = False

    def _plain_lines(self, stop: threading.Event) -> None:
        while not stop.wait(self.seconds):
            self.say(self.look()[2], self.label)

    def _drawn(self) -> RenderableType:
        if not self._started:  # Live asks for it when it is made
            return ""
        below = self.below()
        return self._row() if below is None else Group("", self._row(), "", below)

    def _row(self) -> RenderableType:
        done, total, text = self.look()
        if not total:
            text = f"{duration(round(time.monotonic() - self.begun))}  {text}"
        row = Table.grid(Column(no_wrap=True), Column(max_width=WIDTH), Column(no_wrap=True), padding=(0, 2, 0, 0))
        row.add_row(f"  {self.label}", ProgressBar(total, done) if total else "", Text(printable(text)))
        return row
