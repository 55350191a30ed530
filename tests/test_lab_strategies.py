"""The strategies give the same pixels; the curves and the balance cover the field; the report holds it all."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numba
import numpy as np
import pytest
from click.testing import CliRunner

from mandeldask.cli import cli, lab
from mandeldask.errors import ConfigError
from mandeldask.grid import complex_grid
from mandeldask.kernels import KERNELS
from mandeldask.lab import machine, report, results, scaling, strategies
from mandeldask.lab.scaling import Scaling
from mandeldask.lab.strategies import Problem, Strategy
from mandeldask.lab.workload import Workload, compute_part, cut, lesson_view

ROOT = Path(__file__).parent.parent
SMALL = Problem(side=48, max_iter=40, workers=2)
SIZES = scaling.Sizes(numpy=(48, 40), numba=(64, 200), turns=1)


@pytest.fixture(scope="module")
def found(lab_report):
    return results.read(lab_report / "lab.json")


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
    assert "has the shape 240 x 60 where 120 x 120 was asked for" in " ".join(results.faults({"strategies": [row]}))


def test_with_one_worker_the_printed_one_has_no_fault_yet(monkeypatch):
    some = {name: strategies.STRATEGIES[name] for name in ("naive", "pool as printed")}
    monkeypatch.setattr(strategies, "STRATEGIES", some)
    _, row = strategies.measure(Problem(side=48, max_iter=40, workers=1), turns=1)
    assert (row.pixels_differing, row.shape, row.efficiency) == (0, (48, 48), None)
    assert "nothing is wrong yet" in results.faults({"strategies": [asdict(row)]})[0]


def test_figures_follow_from_the_times(outcomes):
    assert outcomes["naive"]["speedup"]["median"] == 1
    for row in outcomes.values():
        assert row["seconds"]["median"] > 0
        assert row["memory_bytes"] >= 120 * 120 * 4, "the result at least"
        assert (row["efficiency"] is not None) == strategies.STRATEGIES[row["name"]].parallel


def test_processes_of_a_strategy_count_in_its_memory(outcomes):
    """Two more Pythons with NumPy hold more than any array of this size."""
    assert outcomes["numpy distributed"]["memory_bytes"] > 20 * 2**20 > outcomes["numpy"]["memory_bytes"]


def test_a_strategy_that_fails_or_is_not_there_says_so_and_the_rest_goes_on(monkeypatch):
    def missing(problem, kernel, stack):
        raise ConfigError(f"the kernel {kernel} needs a quantum computer")

    def failing_later(problem, kernel, stack):
        calls = iter([0, 0])  # opened and judged, then it fails while it is timed

        def compute():
            next(calls)
            return problem.work(kernel).alone()

        return compute

    some = {
        "naive": strategies.STRATEGIES["naive"],
        "missing": Strategy("missing", "quantum", missing, parallel=False),
        "later": Strategy("later", "numpy", failing_later, parallel=False),
        "numpy": strategies.STRATEGIES["numpy"],
    }
    monkeypatch.setattr(strategies, "STRATEGIES", some)
    naive, first, second, last = strategies.measure(SMALL, turns=2)
    assert first.problem == "the kernel quantum needs a quantum computer"
    assert "StopIteration" in second.problem
    assert (second.seconds, first.seconds) == (None, None)
    assert naive.seconds.n == last.seconds.n == 2
    assert (naive.pixels_differing, last.pixels_differing) == (0, 0)


def test_without_numba_its_parts_say_so_and_the_rest_goes_on(client, monkeypatch):
    """Through the command, on the cluster that is up; the report starts its own."""
    some = ("naive", "numpy", "numpy threads", "numba", "numba threads", "numba distributed")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(
        numba.config, "DISABLE_JIT", 1
    )  # as if read from there; read again, it would stay for other tests
    monkeypatch.setattr(strategies, "STRATEGIES", {name: strategies.STRATEGIES[name] for name in some})
    monkeypatch.setattr(scaling, "worker_counts", lambda cores: [1, 2])
    monkeypatch.setattr(results, "local_workers", lambda n: nullcontext(client))
    monkeypatch.setattr(lab, "PLAIN_SECONDS", 0.01)
    done = CliRunner().invoke(cli, ["lab", "strategies", "--quick", "--workers", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert "measuring  strategies" in done.stderr
    found = json.loads(done.stdout)
    for row in found["strategies"]:
        if row["kernel"] == "numba":
            assert "NUMBA_DISABLE_JIT" in row["problem"]
        else:
            assert row["problem"] == "" and row["seconds"]["median"] > 0
    assert list(found["problems"]) == ["kernel numba"]
    assert "NUMBA_DISABLE_JIT" in found["problems"]["kernel numba"]
    assert [c["name"] for c in found["strong"]] == ["numpy, threads", "numpy, Dask workers"]
    assert len(found["balance"]) == 3


@pytest.mark.parametrize(("n", "parts"), [(10, 3), (3, 5), (7, 1)])
def test_a_range_is_cut_in_parts_that_differ_by_one_at_most(n, parts):
    ranges = cut(n, parts)
    assert [i for first, end in ranges for i in range(first, end)] == list(range(n))
    sizes = {end - first for first, end in ranges}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 2, 4]), (2, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_worker_counts_go_to_the_cores_and_to_the_lessons_four(cores, counts):
    assert scaling.worker_counts(cores) == counts


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 16, 64])
def test_there_are_four_blocks_a_worker_however_many_there_are(kernel, n):
    for work in (scaling.Sizes().work(kernel), scaling.Sizes().work(kernel, n / 4), Problem(workers=n).work(kernel)):
        side = work.block_side(n)
        assert complex_grid(work.view, (side, side)).npartitions >= 4 * n
    assert Problem(workers=n).block == side


def test_strong_scaling_over_dask_cuts_more_blocks_for_more_workers(client, monkeypatch):
    blocks = []

    class Counted(Workload):
        def through_dask(self, block, **scheduler):
            blocks.append(complex_grid(self.view, (block, block)).npartitions)
            return super().through_dask(block, **scheduler)

    monkeypatch.setattr(scaling, "Workload", Counted)
    said = []
    Scaling(client, ["numpy"], SIZES, said.append).strong([1, 16])
    assert (min(blocks), max(blocks)) == (16, 64)
    assert "strong scaling, numpy, turn 1 of 1, Dask workers 16" in said


def test_curves_have_a_point_for_each_count_and_size(found):
    counts = scaling.worker_counts(machine.usable_cores())
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


def test_a_workload_is_the_same_however_it_is_computed(client):
    work = Workload(lesson_view(40, 56), 30, "numba")
    right = KERNELS["numpy"](30)(work.view.block((0, 40), (0, 56)))
    assert np.array_equal(work.alone(), right)
    assert np.array_equal(work.through_dask(16, scheduler=client), right)


def test_the_balance_covers_the_field_once_and_counts_its_iterations(client):
    ways = Scaling(client, [], SIZES).balance(2)
    assert [len(b.pieces) for b in ways] == [2, 2, 64]
    work = SIZES.work("numpy")
    whole = compute_part(work, ((0, 48), (0, 48)))
    for b in ways:
        covered = np.zeros(whole.shape, int)
        for p in b.pieces:
            covered[slice(*p.rows), slice(*p.columns)] += 1
            assert p.iterations == whole[slice(*p.rows), slice(*p.columns)].sum()
            assert p.start <= p.end <= b.seconds
            assert 0 <= p.worker < 2
        assert (covered == 1).all()
        assert 0 < b.evenness <= 1


def test_only_the_workers_asked_for_compute(client):
    ways = Scaling(client, [], SIZES).balance(1)
    assert {p.worker for p in ways[2].pieces} == {0}


def test_a_timeline_in_text_shows_who_was_busy_when():
    pieces = [{"worker": 0, "start": 0.0, "end": 0.5}, {"worker": 1, "start": 0.2, "end": 1.0}]
    lines = results.timelines({"workers": 3, "seconds": 1.0, "pieces": pieces}, width=10)
    assert lines == ["worker 0  |#####....", "worker 1  ..|#######", "worker 2  .........."]


# The report


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
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(results.TABLES)
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
    found = results.read(lab_report / "lab.json")
    evil = "<script>alert(1)</script>"
    found["machine"]["cores"]["cpu"] = found["machine"]["host"] = evil
    found["claims"][0]["why"] = found["strategies"][3]["problem"] = found["strong"][0]["workload"] = evil
    found["problems"]["numba"] = evil + "|\n"
    found["crowd"] = "other programs took 1.4 cores"
    page = report.html(found)
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "Other programs took 1.4 cores." in page


def test_a_report_without_workers_says_why_and_shows_the_rest(lab_report):
    found = results.read(lab_report / "lab.json")
    found |= {"strong": [], "weak": [], "block_sizes": [], "balance": [], "problems": {"workers": "none came up"}}
    for row in found["strategies"]:
        row |= {"problem": "not today", "seconds": None, "faults": {}}
    page = report.html(found)
    assert "workers: none came up" in page
    assert page.count("not today") >= len(found["strategies"])
    assert page.count("<article ") == 17


WALK = (ROOT / "mandeldask/lab/README.md").read_text().replace("\\\n", " ")
STEPS = [line[2:].split() for line in WALK.splitlines() if line.startswith("$ mandeldask ")]


@pytest.mark.parametrize("words", STEPS, ids=" ".join)
def test_a_command_of_the_walk_parses(words):
    result = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output


BAD = {
    "not html": (["lab.pdf"], "must end in .html"),
    "no folder": (["none/lab.html"], "there is no directory none"),
    "from nothing": (["lab.html", "--from", "none.json"], "cannot read the lab's results: No such file"),
    "from no json": (["lab.html", "--from", "notes.txt"], "cannot read the lab's results"),
    "from other json": (["lab.html", "--from", "other.json"], 'no "format"'),
    "from our format's name alone": (["lab.html", "--from", "name.json"], "cannot be drawn (KeyError"),
    "from broken results": (["lab.html", "--from", "broken.json"], "cannot be drawn (TypeError"),
    "beside another's json": (["other.html"], "other.json is something else: give the report another name"),
    "beside another's md": (["notes.html"], "notes.md is something else"),
    "a directory": (["folder.html"], "folder.html is a directory"),
    "a directory beside it": (["tables.html"], "tables.json is a directory"),
    "no workers": (["lab.html", "--workers", "0"], "0 is not in the range"),
    "no size": (["lab.html", "--size", "big"], "is not a valid integer"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told_before_anything_is_measured(tmp_path, monkeypatch, words, message):
    texts = {
        "notes.txt": "mine",
        "notes.md": "# Notes",
        "other.json": "[1, 2]",
        "name.json": json.dumps({"format": results.FORMAT}),
        "broken.json": json.dumps({"format": results.FORMAT, "machine": 7, "strategies": 7}),
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
