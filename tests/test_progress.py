"""The screen of a run: the field in block characters, the bar, plain lines; in a real terminal too."""

from __future__ import annotations

import importlib.util
import io
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.style import Style
from services import poll

import mandeldask as md
from mandeldask import progress
from mandeldask.dashboard import problem_with
from mandeldask.image import palette, palette_index
from mandeldask.job.events import Plan, Progress, TileDone, TileFailed
from mandeldask.kernels import KERNELS, tells_of_compilation
from mandeldask.progress import Bar
from mandeldask.progress.screen import Mosaic, Screen
from mandeldask.telemetry import Preview
from mandeldask.text import fact
from mandeldask.tile import Record
from mandeldask.view import View

ROOT = Path(__file__).parent.parent
VIEW = View(x=(-2, 1), y=(-1.5, 1.5), shape=(120, 200))
GRID = Preview(VIEW.shape, (30, 50), 100)
FIELD = KERNELS["numpy"](100)(VIEW.block((0, 120), (0, 200)))
TILES = [(i, j) for i in range(4) for j in range(4)]


def record(tile):
    i, j = tile
    block = FIELD[30 * i : 30 * i + 30, 50 * j : 50 * j + 50]
    return Record(tile, 0.1, int(block.sum()), 1, 100, 0, "tcp://w:1", 1.0, 2.0, GRID.encode(block, tile))


def test_the_mosaic_of_a_finished_field_has_its_samples_in_the_colours_of_the_picture():
    mosaic = Mosaic(GRID, 50, 15)
    for tile in TILES:
        mosaic.add(record(tile))
    lines = mosaic.lines()
    assert [line.plain for line in lines] == ["▀" * 50] * 15
    samples = FIELD[np.ix_((2 * np.arange(30) + 1) * 2, (2 * np.arange(50) + 1) * 2)][::-1]
    index = palette_index(samples[samples > 0], 100)(samples)
    for row, line in enumerate(lines):
        for column, span in enumerate(line.spans):
            style = Style.parse(span.style)
            shown = [tuple(colour.triplet) for colour in (style.color, style.bgcolor)]
            assert shown == [palette()[index[2 * row, column]], palette()[index[2 * row + 1, column]]]


def test_waiting_failed_and_done_tiles_have_signs_of_their_own():
    mosaic = Mosaic(GRID, 8, 4)
    assert {line.plain for line in mosaic.lines()} == {"·" * 8}
    mosaic.add(record((3, 0)))
    mosaic.fail((3, 3))
    top = mosaic.lines()[0].plain
    assert (top[0], top[3], top[-1]) == ("▀", "·", "×")
    mosaic.add(record((3, 3)))
    assert "×" not in mosaic.lines()[0].plain


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3000, 3000), (20, 10000)])
def test_a_field_of_any_shape_has_a_mosaic_that_fits(shape):
    lines = Mosaic(Preview(shape, (256, 256), 100), 40, 12).lines()
    assert 1 <= len(lines) <= 12
    assert 1 <= len(lines[0]) <= 40


CONFIG = {"view": VIEW, "max_iter": 100, "tile": [30, 50], "kernel": "numpy"}


def run_on(console, client, tmp_path):
    with Screen(console) as screen:
        md.run(CONFIG, tmp_path / "a.zarr", client=client, tell=screen)
    return console.file.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_only(client, tmp_path):
    said = run_on(Console(file=io.StringIO(), width=100), client, tmp_path)
    assert "\x1b" not in said
    assert "▀" not in said
    assert "16 of 30 x 50; 16 to compute, 5 pyramid tiles to build" in said
    assert "done       16 tiles in" in said


def test_a_terminal_shows_bar_field_and_workers(client, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40, color_system="truecolor")
    said = run_on(console, client, tmp_path)
    assert "▀" in said
    assert "in the kernel" in said
    assert "16 tiles in" in said


def test_a_second_run_on_the_same_screen_begins_anew(client, tmp_path):
    """As a film has two."""
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=12)
    with Screen(console) as screen:
        for name in ("a", "b"):
            md.run(CONFIG, tmp_path / f"{name}.zarr", client=client, tell=screen)
            assert (screen.done, sum(screen.load.tiles.values())) == (16, 16)
    assert console.file.getvalue().count("\x1b[?25l") == 2, "a bar for each"


def test_a_small_terminal_has_a_bar_and_no_field(client, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=12, color_system="truecolor")
    assert "▀" not in run_on(console, client, tmp_path)


def test_what_comes_from_outside_is_shown_as_it_is():
    console = Console(file=io.StringIO(), width=100)
    screen = Screen(console)
    screen(TileFailed((1, 2), 3, "ValueError: [red]not[/red] [link=x] \x1b]0;title\x07", True))
    said = console.file.getvalue()
    assert "tile 1,2, attempt 3, given up: ValueError: [red]not[/red] [link=x]" in said
    assert "\x1b" not in said


def test_the_load_of_a_worker_is_a_share_of_all_its_threads(client, tmp_path, monkeypatch):
    console = Console(file=io.StringIO(), width=100)
    screen = Screen(console)
    plans = []
    md.run(CONFIG, tmp_path / "a.zarr", client=client, tell=lambda e: plans.append(e) if type(e) is Plan else None)
    screen(replace(plans[0], cluster=replace(plans[0].cluster, threads_per_worker=4)))
    for tile in TILES[:8]:
        screen(TileDone(replace(record(tile), seconds=1.0, worker="tcp://[red]:1")))
    monkeypatch.setattr(time, "time", lambda: 1.0 + 4)  # the first task began at 1
    console.print(screen.load.table(4))
    assert "[red]:1" in console.file.getvalue()
    assert "50% in the kernel" in console.file.getvalue()


def test_the_state_tells_rate_and_time_left(client, tmp_path, monkeypatch):
    screen = Screen(Console(file=io.StringIO(), width=100))
    md.run(CONFIG, tmp_path / "a.zarr", client=client, tell=lambda e: screen(e) if type(e).__name__ == "Plan" else None)
    assert screen._words(16) == "no tile finished yet"
    monkeypatch.setattr(time, "monotonic", lambda: 900.0)  # the first task begins
    screen(Progress(0, 16, 0, 0.0, 0.0, None, 2))
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert screen._words(16) == "no tile finished yet after 1 min 40 s"
    screen(TileDone(record((0, 0))))
    screen(Progress(1, 15, 0, 1e6, 2.5e9, 90.0, 2))
    assert screen._words(16) == "1/16 tiles, 2.5 G iterations/s, 1 min 30 s left"


def test_a_run_whose_tiles_are_done_says_that_levels_are_being_made(client, tmp_path):
    screen = Screen(Console(file=io.StringIO(), width=100))
    md.run(CONFIG, tmp_path / "a.zarr", client=client, tell=lambda e: screen(e) if type(e).__name__ == "Plan" else None)
    for tile in TILES:
        screen(TileDone(record(tile)))
    for levels, said in ((3, "3 pyramid tiles"), (1, "1 pyramid tile")):
        screen(Progress(16, 16, 0, 1e6, 2.5e9, 0.0, 2, levels))
        assert screen._words(16) == f"16/16 tiles; {said} to build"


def test_a_run_that_has_levels_alone_to_make_says_so(client, tmp_path):
    md.run(CONFIG, tmp_path / "a.zarr", client=client)
    for name in ("1/escape_time/c/0/1", "2/escape_time/c/0/0"):
        (tmp_path / "a.zarr" / name).unlink()
    screen = Screen(Console(file=io.StringIO(), width=100))
    md.resume(tmp_path / "a.zarr", kernel="numpy", client=client, tell=screen)
    said = screen.console.file.getvalue()
    assert "16 done already: resuming; 0 to compute, 2 pyramid tiles to build" in said
    assert "done       2 pyramid tiles built; every tile was computed already" in said


def test_the_command_that_tries_failed_tiles_again_can_be_typed(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    screen = Screen(Console(file=io.StringIO(), width=100))
    summary = md.run(CONFIG, tmp_path / "a b.zarr", client=client, tell=screen)
    screen(replace(summary, failed=2))
    assert "mandeldask resume 'a b.zarr'` tries them again" in screen.console.file.getvalue()


def drawn(width, *state, **options):
    """The line of a bar on a terminal, as it is drawn."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with Bar("frames", console=console, **options) as bar:
        bar.show(*state)
        return console.file.getvalue().replace("\x1b[?25l", "")


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_a_bar_keeps_to_one_line_and_shrinks_before_its_words_do(width):
    words = "3/12, 1 min 30 s left [red]x[/red]"
    (line,) = drawn(width, 3, 12, words).splitlines()
    assert len(line.rstrip()) <= width
    assert (words in line) == (width >= 60)


def test_where_a_bar_has_no_room_the_rate_goes_before_the_time_left():
    words = "waiting: 3/12 tiles, 12.5 M samples/s, 2 workers, 1 min 30 s left"
    assert words in drawn(100, 3, 12, words)
    assert "waiting: 3/12 tiles, 1 min 30 s left" in drawn(60, 3, 12, words)


def test_a_bar_of_what_has_no_known_end_tells_the_seconds():
    assert "0 s  strategies" in drawn(60, 0, 0, "strategies")


def test_elsewhere_than_on_a_terminal_a_bar_is_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    console = Console(file=io.StringIO(), width=100)
    with Bar("verify", console=console) as bar:
        bar.show(1, 9, "1/9 tiles")
        assert console.file.getvalue().splitlines()[0] == "  verify     1/9 tiles"
        bar.show(2, 9, "2/9 tiles")
        poll(lambda: "  verify     2/9 tiles" in console.file.getvalue(), "the second line")
    assert "\x1b" not in console.file.getvalue()


def test_a_quiet_bar_prints_nothing_in_a_terminal_or_elsewhere(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    for force in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", force)  # rich takes stderr for a terminal then
        with Bar("verify", quiet=True) as bar:
            bar.show(1, 9, "1/9 tiles")
            bar.line("verify", "a line")
            time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


def test_a_count_tells_the_time_left_at_the_rate_since_the_first(monkeypatch):
    bar = Bar("frames", console=Console(file=io.StringIO()))
    for second, done in ((100.0, 0), (107.0, 1), (109.0, 3)):
        monkeypatch.setattr(time, "monotonic", lambda second=second: second)
        bar.count(done, 12)
    bar.stop()
    assert bar.state == (3, 12, "3/12, 9 s left")


def in_a_terminal(command, tmp_path, answer):
    """What a command prints in a pseudo-terminal of its own; `answer` makes keys of what it has said so far."""
    terminal, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    take = "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(
        [sys.executable, "-c", take, *command], cwd=tmp_path, env=env, **ends, start_new_session=True
    )
    os.close(theirs)
    said, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux says so of a terminal whose other end is closed
                break
            said += part
            if keys := answer(said.decode(errors="replace")):
                os.write(terminal, keys)
    os.close(terminal)
    assert process.wait(timeout=60) == 0, said.decode()
    assert b"Traceback" not in said
    return said.decode()


LESSON = [sys.executable, "-m", "mandeldask", "run", str(ROOT / "configs/lesson.yaml"), "--set", "cluster.workers=1"]
LESSON += ["--set", "view.shape=[200,200]", "--set", "tile=[100,100]"]


def test_a_run_draws_in_a_terminal_and_leaves_the_page_of_a_short_one_up_until_enter(tmp_path):
    """The cursor is back at the end; whether the page was up is asked while it waits."""
    up = []

    def answer(said):
        if "stays up" in said and not up:
            (link,) = set(re.findall(r"http://\S+/mandeldask", said))
            up.append(problem_with(link))
            assert (tmp_path / "lesson.png").exists()
            return b"\n"
        return None

    text = in_a_terminal(LESSON, tmp_path, answer)
    assert up == [""]
    assert "stays up for 20 s; press Enter to close it" in text
    assert "▀" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_run_in_a_script_waits_for_nobody(tmp_path):
    text = in_a_terminal(["sh", "-c", f"{shlex.join(LESSON)}; true"], tmp_path, lambda said: None)
    assert "large.png" in text
    assert "stays up" not in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(client, tmp_path, width, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40, color_system="truecolor")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_on(console, client, Path()))
    assert "in the kernel" in " ".join(plain.split())
    assert ("▀" in plain) == (width >= 80)
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= width
    assert "…" not in plain


FACTS = {  # and what of it stays whole
    "prose": ("2 workers of 1 thread and 11.77 GiB; a tile needs 32.42 MiB", []),
    "a command and what it does": ("mandeldask image a.zarr b.png    the picture", ["mandeldask image a.zarr b.png"]),
    "a quoted command": ("2 tiles; `mandeldask resume 'a b'` tries them again", ["`mandeldask resume 'a b'`"]),
    "a command at the end": ("interrupted; go on with:  mandeldask resume b.zarr", ["mandeldask resume b.zarr"]),
    "a path that is too long": (f"{'a/' * 30}b.zarr, at most 3 MiB", [f"{'a/' * 30}b.zarr,"]),
}


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize(("text", "whole"), FACTS.values(), ids=FACTS)
def test_a_fact_is_folded_and_what_is_copied_stays_whole(text, whole, width):
    shown = fact("label", text, width)
    lines = [line.strip() for line in shown.split("\n")]
    assert " ".join(shown.split()) == " ".join(f"label {text}".split())
    assert all(any(piece in line for line in lines) for piece in whole)
    assert all(len(line) <= width or line in whole for line in shown.split("\n"))
    assert fact("label", text) == f"  label      {text}"


def test_compiling_is_said_where_something_is_compiled_and_not_of_a_cache(tmp_path):
    (tmp_path / "tiny.py").write_text("import numba\n\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n")
    said = []
    for times in (1, 1):  # the second finds the code of the first
        spec = importlib.util.spec_from_file_location("tiny", tmp_path / "tiny.py")
        tiny = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tiny)
        with tells_of_compilation(lambda: said.append("compiling")):
            assert tiny.twice(2) == 4
        assert len(said) == times
