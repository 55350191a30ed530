"""Thousands of seeded command lines, run descriptions and films, most of them wrong: each ends in order, none in a bug.

MANDELDASK_FUZZ=20000 scripts/test tests/test_fuzz.py plays more of them. Nothing is computed, and no cluster started.
"""

from __future__ import annotations

import json
import os
import random
import traceback
import webbrowser

import click
import pytest
from click.testing import CliRunner

import mandeldask as md
from mandeldask import config, explorer, job, measure, zoom
from mandeldask.cli import cli
from mandeldask.image import PictureOptions
from mandeldask.job import runs
from mandeldask.store import Description, open_for_writing

CASES = int(os.environ.get("MANDELDASK_FUZZ", "1000"))
BLOCKS = 10
CODES = {0, 2, 3, 4, 5, 6}
LABEL = "a" * 70
NUMBERS = ["0", "-1", "1", "2", "7.5", "1e5", "1e-300", "1e400", "1e999999", "9" * 400, "0x10", "1_000", ".inf", "nan"]
TEXTS = ["", " ", "~", "true", "x", "auto", "numpy", "local", "\ufeff", "\u202e", "\x1b[2J", "é" * 300, "a\nb", "#fff"]
NESTED = ["[]", "[1]", "[1, 2]", "[[1], 2]", "[a, b]", "{}", "{a: 1}", "{kind: local}", "[1, {a: [2]}]", "[" * 200]
VALUES = [*NUMBERS, *TEXTS, *NESTED]
ADDRESSES = [
    *("tcp://127.0.0.1:1", "tcp://a..b:8786", f"tcp://{LABEL}:8786", "tcp://127.0.0.1:99999", "tcp://:", "tcp://[::1"),
    *("tls://127.0.0.1:1", "ws://127.0.0.1:1", "ucx://a", "tcp://127.0.0.1:-1", "tcp://%", "inproc://x", "://"),
]
KINDS = {
    "local": {},
    "address": {"address": "tcp://127.0.0.1:1"},
    "scheduler-file": {"path": "missing.json"},
    "slurm": {"cores": 1, "memory": "1GiB"},
    "class": {"type": "distributed.NoCluster"},
}
PLACES = [
    {"x": [-2, 1], "y": [-1.5, 1.5]},
    {"centre": [0, 0], "span": 3},
    {"centre": [0, 0], "span": 3, "rotation": 30},
    {"centre": [0, 0], "radius": [0.1, 1], "projection": "log-polar"},
]
FILM = {"centre": [0, 0], "from": 3, "to": 0.1, "size": [64, 64], "fps": 2, "seconds": 1, "max_iter": 9}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a store and a description; what would compute, serve or submit ends where it would begin."""

    def enough(*_, **__):
        raise md.StoreError("enough")

    for room, name in ((runs, "drive"), (explorer, "explore"), (job, "submit"), (zoom, "make"), (measure, "Session")):
        monkeypatch.setattr(room, name, enough)
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    view = md.View((-2, 1), (-1.5, 1.5), (20, 20))
    open_for_writing("s.zarr", Description.of(view, 9, ("escape_time",), (10, 10)))
    (tmp_path / "c.yaml").write_text(json.dumps(described(random.Random(0))))
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    return tmp_path


def described(chance):
    return {"view": {**chance.choice(PLACES), "shape": [20, 20]}, "max_iter": 9, "store": "s.zarr"}


def mutated(chance, mapping, keys):
    """YAML of a mapping in which some values are others; `keys` are those that it may have."""
    lines = {key: json.dumps(value) for key, value in mapping.items()}
    for _ in range(chance.randrange(1, 4)):
        lines[chance.choice([*keys, *mapping])] = chance.choice(VALUES)
    if chance.random() < 0.1:
        lines.pop(chance.choice([*lines]))
    return "{" + ", ".join(f"{key}: {value}" for key, value in lines.items()) + "}"


def text_of_run(chance):
    run = described(chance)
    kind = chance.choice([*KINDS])
    models = {type(config.load_cluster({"kind": kind, **more})).__name__: kind for kind, more in KINDS.items()}
    assert len(models) == len(KINDS)
    sections = {
        "view": (
            run["view"],
            ["x", "y", "centre", "span", "rotation", "projection", "radius", "shape", "registration"],
        ),
        "picture": ({}, [*PictureOptions.__dataclass_fields__]),
        "cluster": (
            {"kind": kind, **KINDS[kind]},
            [*type(config.load_cluster({"kind": kind, **KINDS[kind]})).model_fields],
        ),
    }
    parts = {key: json.dumps(value) for key, value in run.items()}
    for name in chance.sample([*sections], chance.randrange(3)):
        parts[name] = mutated(chance, *sections[name])
    if chance.random() < 0.5:
        parts[chance.choice([*config.Config.model_fields])] = chance.choice(VALUES)
    return "\n".join(f"{key}: {value}" for key, value in parts.items())


def word(chance, option):
    if option.name == "cluster":
        return chance.choice([*ADDRESSES, "c.yaml", "cluster.yaml", "missing.json", "empty", "local", *TEXTS])
    if option.name in ("store", "config", "out", "image", "report", "what", "described", "job"):
        return chance.choice(
            [
                "s.zarr",
                "c.yaml",
                "run.yaml",
                "film.yaml",
                "a.png",
                "a.mp4",
                "missing",
                "empty",
                "binary",
                "folder",
                *TEXTS,
            ]
        )
    if option.name == "overrides":
        key = chance.choice(
            [
                "view.shape",
                "view.x",
                "picture.repeat",
                "picture.phase",
                "cluster.kind",
                "tile",
                "max_iter.a",
                "fields",
                "",
                ".",
            ]
        )
        return f"{key}={chance.choice(VALUES)}"
    return chance.choice([*NUMBERS, *TEXTS, "10", "315"])


def command_line(chance, names):
    name = chance.choice(names)
    words = []
    for option in cli.commands[name].params:
        needed = isinstance(option, click.Argument) or option.required
        if chance.random() > (0.95 if needed else 0.25):
            continue
        many = [word(chance, option) for _ in range(0 if getattr(option, "is_flag", False) else option.nargs)]
        words += many if isinstance(option, click.Argument) else [chance.choice(option.opts), *many]
    return [name, *words]


def assert_in_order(case, call):
    try:
        call()
    except md.MandeldaskError:
        pass
    except Exception:
        pytest.fail(f"{case}\n{traceback.format_exc()}")


def test_a_number_beyond_floats_is_refused_or_taken_as_a_size():
    with pytest.raises(md.ConfigError, match="repeat must be a number above 0"):
        PictureOptions.of({"repeat": 10**400})
    PictureOptions.of({"size": 10**300})


@pytest.mark.parametrize("seed", range(BLOCKS))
def test_run_descriptions_are_read_or_refused(here, seed):
    for n in range(CASES // BLOCKS):
        text = text_of_run(random.Random(1000 * seed + n))
        (here / "run.yaml").write_text(text)

        def read():
            run = config.load("run.yaml")
            Description.of(run.view, run.max_iter, run.fields, run.tile or (8, 8)).problem()
            if run.picture:
                PictureOptions.of(run.picture.model_dump(exclude_none=True)).check(run.view.shape, run.fields)

        assert_in_order(text, read)


@pytest.mark.parametrize("seed", range(BLOCKS))
def test_films_are_read_or_refused(here, seed):
    for n in range(CASES // BLOCKS):
        text = mutated(random.Random(1000 * seed + n), FILM, [*zoom.COLOURS, "kernel", "out", "cluster", "a"])
        (here / "film.yaml").write_text(text)

        def read():
            values = zoom.read_film("film.yaml", {})
            zoom.Film.of(values)
            PictureOptions.of({key: values[key] for key in zoom.COLOURS if key in values})

        assert_in_order(text, read)


@pytest.mark.parametrize("seed", range(BLOCKS))
def test_command_lines_end_with_a_code_that_is_documented(here, seed):
    names = sorted({*cli.commands} - {"info", "lab"})  # those look at the machine
    for n in range(CASES // BLOCKS // 4):
        chance = random.Random(1000 * seed + n)
        (here / "run.yaml").write_text(text_of_run(chance))
        (here / "film.yaml").write_text(mutated(chance, FILM, zoom.COLOURS))
        (here / "cluster.yaml").write_text(
            mutated(chance, {"kind": "address", **KINDS["address"]}, ["ca_file", "cert"])
        )
        words = command_line(chance, names)
        result = CliRunner().invoke(cli, words)
        if result.exit_code not in CODES:
            pytest.fail(f"{words}\n{result.output}\n{''.join(traceback.format_exception(*result.exc_info))}")
