"""The lab's report, measured once: the claims, strategies and curves in it, its page and its tables."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from dask.system import cpu_count

from mandeldask.cli import cli
from mandeldask.errors import ConfigError
from mandeldask.lab import report, strategies, tables
from mandeldask.lab.claims import SAYS
from mandeldask.text import table

pytestmark = pytest.mark.once  # another Python and zarr change little here


@pytest.fixture(scope="module")
def lab_report(tmp_path_factory):
    """The folder of a quick report of the lab, measured once: its page, and its tables as JSON and as Markdown."""
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "mandeldask", "lab", "report", "lab.html", "--quick", "--workers", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert "  measuring  " in done.stderr
    assert done.stdout.split() == ["lab.html", "lab.json", "lab.md"]
    return folder


@pytest.fixture(scope="module")
def found(lab_report):
    return report.read(lab_report / "lab.json")


def test_every_claim_of_the_lesson_has_a_verdict_and_a_reason(found):
    assert [c["key"] for c in found["claims"]] == list(SAYS)
    for c in found["claims"]:
        assert c["verdict"] in ("true", "false", "depends", "not measurable here")
        assert c["why"]
        assert not c["why"].startswith("the experiment failed"), c["why"]


@pytest.mark.parametrize("key", ["sum", "mean", "std", "add", "sqrt", "exp", "mask"])
def test_no_threads_outside_linear_algebra(found, key):
    """Judged by CPU seconds, so a busy machine does not change it; no known NumPy threads these."""
    (claim,) = (c for c in found["claims"] if c["key"] == key)
    assert claim["verdict"] in ("false", "not measurable here") or claim["noise"]


@pytest.fixture(scope="module")
def outcomes(found):
    """The strategies' rows of the report: 120 x 120 samples, two workers."""
    return {row["name"]: row for row in found["strategies"]}


def test_every_strategy_equals_the_reference_to_the_bit_but_the_printed_one(outcomes):
    assert list(outcomes) == list(strategies.STRATEGIES)
    for row in outcomes.values():
        assert row["problem"] == ""
        if row["name"] != "pool as printed":
            assert (row["pixels_differing"], row["shape"]) == (0, [120, 120]), row["name"]


def test_the_printed_one_shows_its_faults(outcomes):
    row = outcomes["pool as printed"]
    assert (row["pixels_differing"], row["shape"]) == (None, [240, 60])
    assert (row["faults"]["rows"], row["faults"]["rows_twice"]) == (120, 1)
    assert "has the shape 240 x 60 where 120 x 120 was asked for" in " ".join(tables.faults({"strategies": [row]}))


def test_figures_follow_from_the_times(outcomes):
    assert outcomes["naive"]["speedup"]["median"] == 1
    for row in outcomes.values():
        assert row["seconds"]["median"] > 0
        assert row["memory_bytes"] >= 120 * 120 * 4, "the result at least"
        assert (row["efficiency"] is not None) == (strategies.STRATEGIES[row["name"]][1] != strategies.ALONE)


def test_processes_of_a_strategy_count_in_its_memory(outcomes):
    """Two more Pythons with NumPy hold more than any array of this size."""
    assert outcomes["numpy distributed"]["memory_bytes"] > 20 * 2**20 > outcomes["numpy"]["memory_bytes"]


def test_curves_have_a_point_for_each_count_and_size(found):
    counts = strategies._worker_counts(cpu_count())
    for part in ("strong", "weak"):
        assert [c["name"] for c in found[part]] == [
            "numpy, threads", "numpy, Dask workers", "numba, threads", "numba, Dask workers",
        ]  # fmt: skip
    for curve in found["strong"]:
        assert [p["x"] for p in curve["points"]] == counts
        assert [p["efficiency"] for p in curve["points"]] == [p["speedup"]["median"] / p["x"] for p in curve["points"]]
        assert curve["points"][0]["efficiency"] == 1
    for curve in found["weak"]:
        assert [p["efficiency"] for p in curve["points"]] == [p["speedup"]["median"] for p in curve["points"]]
    assert [[p["x"] for p in c["points"]] for c in found["block_sizes"]] == [[15, 30, 60, 120], [16, 32, 64, 128]]


class Links(HTMLParser):
    """Everything that a page would load or lead to."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_report_needs_nothing_from_elsewhere(lab_report):
    page = (lab_report / "lab.html").read_text()
    links = Links(page).found
    kinds = {link.partition(";")[0] for link in links}
    assert kinds == {"data:image/png", "data:application/json", "data:text/markdown"}
    assert "<script" not in page
    assert "url(" not in page[: page.index("</style>")]
    assert "@import" not in page[: page.index("</style>")]


def test_the_tables_that_a_report_carries_are_those_beside_it(lab_report):
    links = Links((lab_report / "lab.html").read_text()).found[-2:]
    texts = [base64.b64decode(link.split(",")[1]).decode() for link in links]
    assert json.loads(texts[0]) == json.loads((lab_report / "lab.json").read_text())
    assert texts[1] == (lab_report / "lab.md").read_text()


def test_the_report_holds_every_part(lab_report):
    page = (lab_report / "lab.html").read_text()
    found = json.loads((lab_report / "lab.json").read_text())
    assert found["problems"] == {}
    assert page.count("<article ") == len(found["claims"]) == 17
    assert page.count("<svg ") == 4 + 2 * 3  # strategies, strong, weak, blocks; three balances of two drawings
    for name in ("numpy, Dask workers", "numba, threads", "8 x 8 blocks", "wrong: shape 240 x 60"):
        assert name in page


def test_the_markdown_has_a_table_for_each_part(lab_report):
    text = (lab_report / "lab.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(
        tables.tables(report.read(lab_report / "lab.json"))
    )
    assert "| numpy distributed | 2 |" in text


def test_what_a_report_wrote_can_be_drawn_again_in_its_place(lab_report):
    page, tables = lab_report / "lab.html", (lab_report / "lab.json", lab_report / "lab.md")
    before, drawn = [table.read_text() for table in tables], page.stat().st_mtime_ns
    done = CliRunner().invoke(cli, ["lab", "report", str(page), "--from", str(tables[0])])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(page), *map(str, tables)]
    assert [table.read_text() for table in tables] == before
    assert page.stat().st_mtime_ns > drawn


def test_names_from_outside_are_text_and_no_markup(lab_report):
    found = report.read(lab_report / "lab.json")
    evil = "<script>alert(1)</script>"
    found["machine"]["cores"]["cpu"] = found["machine"]["host"] = evil
    found["claims"][0]["why"] = found["strategies"][3]["problem"] = found["strong"][0]["workload"] = evil
    found["problems"]["numba"] = evil + "|\n"
    found["warnings"] = ["other programs take 1.4 cores"]
    page = report._html(found)
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "other programs take 1.4 cores" in page


BAD = {
    "not html": (["lab.pdf"], "must end in .html"),
    "no folder": (["none/lab.html"], "there is no directory none"),
    "from nothing": (["lab.html", "--from", "none.json"], "cannot read the lab's results: No such file"),
    "from no json": (["lab.html", "--from", "notes.txt"], "cannot read the lab's results"),
    "from other json": (["lab.html", "--from", "other.json"], 'no "format"'),
    "beside another's json": (["other.html"], "other.json is something else: give the report another name"),
    "beside another's md": (["notes.html"], "notes.md is something else"),
    "a directory": (["folder.html"], "folder.html is a directory"),
    "a directory beside it": (["tables.html"], "tables.json is something else"),
    "no workers": (["lab.html", "--workers", "0"], "0 is not in the range"),
    "no size": (["lab.html", "--size", "big"], "is not a valid integer"),
}


def test_a_report_without_workers_says_why_and_shows_the_rest(lab_report):
    found = report.read(lab_report / "lab.json")
    found |= {"strong": [], "weak": [], "block_sizes": [], "balance": [], "problems": {"workers": "none came up"}}
    for row in found["strategies"]:
        row |= {"problem": "not today", "seconds": None, "faults": {}}
    page = report._html(found)
    assert "workers: none came up" in page
    assert page.count("not today") >= len(found["strategies"])
    assert page.count("<article ") == 17


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told_before_anything_is_measured(tmp_path, monkeypatch, words, message):
    texts = {
        "notes.txt": "mine",
        "notes.md": "# Notes",
        "other.json": "[1, 2]",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name in ("folder.html", "tables.json"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["lab", "report", *words])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert "measuring" not in done.output
    assert {path.name for path in tmp_path.iterdir()} == {*texts, "folder.html", "tables.json"}
    assert {name: (tmp_path / name).read_text() for name in texts} == texts


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured():
    folder = Path(tempfile.mkdtemp())  # where any user may look, unlike tmp_path
    folder.chmod(0o555)
    try:
        told = as_no_root(lambda: report.check_target(str(folder / "lab.html")))
    finally:
        folder.rmdir()
    assert re.search(r"cannot write .*lab\.html: Permission denied", told)


def as_no_root(function):
    """What ConfigError a function raises in a process that may not write everywhere."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            function()
        except ConfigError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as told:
        return told.read()


def test_a_table_wider_than_the_terminal_goes_on_below_itself():
    lines = [["name", "a", "b", "c"], ["one", "1" * 8, "2" * 8, "some words more"]]
    assert max(map(len, table(lines).split("\n"))) == 4 + 2 + 8 + 2 + 8 + 2 + 15
    assert table(lines, 24).split("\n") == [
        "name  a         b",
        "one   11111111  22222222",
        "",
        "name  c",
        "one   some words more",
    ]
    assert table(lines, 18).split("\n")[-2:] == ["one   some words", "      more"]
