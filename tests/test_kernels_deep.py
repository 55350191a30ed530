"""Counts that are proven: against answers by MPFR, which were proven sample by sample."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from kernel_contract import memory_beside

from mandeldask.errors import ConfigError
from mandeldask.kernels import KERNELS, Exact, block_function, deep
from mandeldask.kernels.deep import Counts, DeepFunction, Held, count, last_counts, reference, reference_orbit, third
from mandeldask.kernels.deep.prepared import Prepared
from mandeldask.kernels.deep.third import Count
from mandeldask.view import View

pytestmark = pytest.mark.once  # another Python and zarr change little here

preparing = sys.modules[Prepared.__module__]  # the package has a function of that name
VIEW = View.around((0, 1), "1e-30", (2, 3))
ANSWERS = {a["name"]: a for a in json.loads(Path(__file__).with_name("deep_answers.json").read_text())["answers"]}
# scripts/check_deep has time for these too: 10 s and more for the reference alone
SLOW = {"KF 5e227", "KF 1e1086", "Fractalshades 11, 2e-2608", "1/4 + 10^-12", "-3/4 + 10^-7 i"}


@cache
def loader(name):
    a = ANSWERS[name]
    return Held(reference_orbit(tuple(map(Fraction, a["origin"])), a["unit_log2"], a["max_iter"]))


def samples(name):
    """Offsets, and their counts."""
    found = ANSWERS[name]["samples"]
    offsets = [complex(float.fromhex(s["x"]), float.fromhex(s["y"])) for s in found]
    return np.array(offsets), np.array([s["count"] for s in found])


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - SLOW))
def test_every_answer_is_right_and_proven(name):
    offsets, counts = samples(name)
    block = DeepFunction(ANSWERS[name]["max_iter"], ("escape_time",), loader(name))
    assert block(offsets).tolist() == counts.tolist()
    assert last_counts().unproven == 0
    assert last_counts().third <= last_counts().second <= len(counts)
    assert pickle.loads(pickle.dumps(block))(offsets[:1, np.newaxis]).tolist() == [[counts[0]]]


def test_infinite_and_nan_offsets_have_escaped_and_disturb_no_other():
    offsets, counts = samples("KF 1e14")
    strange = np.array([complex("inf"), complex("nan"), complex(0, -np.inf)])
    found = block_of("KF 1e14", ("escape_time", "smooth"))(np.concatenate([strange, offsets]))
    assert found["escape_time"].tolist() == [1, 1, 1, *counts]
    assert np.isnan(found["smooth"][:3]).all() and last_counts().unproven == 0


@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
def test_memory_beside_block_and_result_is_bounded(layout):
    view = View.around(("-2", "3"), "1e-3", (1024, 1024), arithmetic="exact")
    c = view.block((0, 1024), (0, 1024))
    c = {"rows": c, "columns": c.T, "strided": c[:, ::2]}[layout]
    kernel = block_function(Exact(view), 300, ("escape_time", "smooth", "distance"))
    kernel(c[:1])
    out, beside = memory_beside(kernel, c)
    assert beside < 8e6
    assert (out["escape_time"] == 1).all()


@pytest.mark.parametrize("proof", ["full", "none"])
def test_a_tile_of_a_strip_with_few_columns_is_that_of_its_rows(proof):
    """Offsets over 540 decades: in one unit the lower half are 0."""
    view = View.log_polar(("0", "1"), ("1e-270", "1e270"), 8)
    rows, fields = view.shape[0], ("escape_time", "smooth", "distance")
    offsets = view.block((0, rows), (0, 8))
    kernel = block_function(Exact(view, None, proof), 3000, fields)
    whole = kernel(offsets)
    some = range(0, rows, 30)
    for name in fields:
        alone = np.concatenate([kernel(offsets[k : k + 1])[name] for k in some])
        np.testing.assert_allclose(whole[name][some], alone, rtol=1e-6)
    assert len(np.unique(whole["escape_time"][:, 0])) > 400


def test_a_distance_too_small_for_a_double_is_nan():
    held = Held(reference_orbit((Fraction(0), Fraction(1)), -1040, 3000))
    found = DeepFunction(3000, ("escape_time", "smooth", "distance"), held, unit=-20)(np.array([1e-305 + 0j, 1e-290]))
    assert (found["escape_time"] < 3000).all() and np.isfinite(found["smooth"]).all()
    assert np.isnan(found["distance"]).tolist() == [True, False]


def test_tables_in_plain_doubles_are_kept_within_bounds(monkeypatch):
    here = deep.prepared(loader("KF 1e14"))
    first = here.flat(-60)
    assert here.flat(-92) is not first and here.flat(-60) is first
    monkeypatch.setattr(preparing, "FLATS_BYTES", 0)
    here.flat(-124)
    assert len(here.flats) == 1


def test_room_for_a_large_reference_is_made_before_it_is_loaded(monkeypatch):
    deep.prepared(loader("KF 1e14"))
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    kept = []

    class Loads(Held):
        def __call__(self):
            kept.extend(preparing._cache)
            return self.reference

    deep.prepared(Loads(reference_orbit((Fraction(-1), Fraction(1, 3)), -50, 100)))
    assert kept == [] and len(preparing._cache) == 1


@pytest.mark.parametrize("block", [np.zeros(3), np.zeros((2, 2), np.complex64), 0j, None])
def test_a_block_that_is_no_complex128_array_is_refused_with_the_remedy(block):
    with pytest.raises(ConfigError, match=r"\.astype\(complex\)"):
        block_of("KF 1e14")(block)


@pytest.mark.parametrize("max_iter", [0, -1, 2**63, 1.5, "100", True, None])
def test_a_bad_max_iter_is_refused_before_any_work(max_iter):
    with pytest.raises(ConfigError, match="max_iter"):
        block_function("deep", max_iter, view=VIEW)


def block_of(name, fields=("escape_time",), **options):
    return DeepFunction(ANSWERS[name]["max_iter"], fields, loader(name), **options)


@pytest.mark.parametrize("name", ["KF 1e14", "KF 5e113", "random walk 21-23", "tip -2", "i + 2^-400"])
def test_smooth_and_distance_are_those_of_the_orbit_in_fixed_point(name):
    """The third pass shares no line with the others but the fixed point of the reference."""
    offsets, counts = samples(name)
    found = block_of(name, ("escape_time", "smooth", "distance"))(offsets)
    assert found["escape_time"].tolist() == counts.tolist()
    reference, unit = loader(name)(), ANSWERS[name]["unit_log2"]
    for offset, smooth, distance in zip(offsets.tolist(), found["smooth"], found["distance"], strict=True):
        c = [
            o + Fraction(part) * Fraction(2) ** unit
            for o, part in zip(reference.origin, (offset.real, offset.imag), strict=True)
        ]
        own = count(tuple(c), ANSWERS[name]["max_iter"], 200 - unit, to_bailout=True)
        size = np.hypot(own.x, own.y)
        assert smooth == pytest.approx(own.end - np.log2(np.log2(size)), rel=1e-6)
        slope = np.ldexp(np.hypot(own.dx, own.dy), own.exponent + unit)
        assert distance == pytest.approx(2 * size * np.log(size) / slope, rel=1e-6)


def test_one_that_escapes_with_the_last_step_has_neither_smooth_count_nor_distance():
    offsets, counts = samples("KF 1e14")
    last = int(np.median(counts))
    found = DeepFunction(last, ("escape_time", "smooth", "distance"), loader("KF 1e14"))(offsets)
    assert (found["escape_time"] == np.minimum(counts, last)).all() and (counts == last).any()
    assert (np.isnan(found["smooth"]) == (counts >= last)).all()
    assert (np.isnan(found["distance"]) == (counts >= last)).all()


def test_what_does_not_escape_has_neither_smooth_count_nor_distance():
    name = "copy of the set of period 8007, size 2^-106.5"
    offsets, counts = samples(name)
    found = block_of(name, ("escape_time", "smooth", "distance"))(offsets)
    inside = counts == ANSWERS[name]["max_iter"]
    assert inside.any() and (found["escape_time"] == counts).all()
    assert (np.isnan(found["smooth"]) == inside).all() and (np.isnan(found["distance"]) == inside).all()


def test_proof_says_how_far_to_go():
    name = "random walk 21-23"
    offsets, counts = samples(name)
    assert (block_of(name)(offsets) == counts).all()
    full = last_counts()
    assert full.second > full.third > full.unproven == 0
    known = block_of(name, proof="double-double")(offsets)
    assert last_counts() == Counts(full.second, 0, full.third)
    assert (known != counts).sum() <= full.third
    assert (block_of(name, proof="none")(offsets) != counts).any()
    assert last_counts() == Counts(0, 0, len(offsets))


def test_the_reference_has_the_same_bits_from_either_kind_of_integers(monkeypatch):
    pytest.importorskip("gmpy2")
    monkeypatch.setattr(reference, "MPZ_FROM", 0)
    for name in ["KF 5e113", "KF 4e533", "tip -2"]:
        a, origin = ANSWERS[name], tuple(map(Fraction, ANSWERS[name]["origin"]))
        found = []
        for integer in (int, reference.mpz):
            monkeypatch.setattr(reference, "mpz", integer)
            r = reference_orbit(origin, a["unit_log2"], min(a["max_iter"], 30_000))
            found.append((r.bits, r.error, r.z.tobytes(), r.low.tobytes(), r.tiny.tobytes()))
        assert found[0] == found[1]


def test_another_reference_another_unit_and_another_tiling_give_the_same_counts():
    name, max_iter = "KF 5e113", ANSWERS["KF 5e113"]["max_iter"]
    unit, origin = ANSWERS[name]["unit_log2"], loader(name)().origin
    k = np.arange(-20, 20)
    offsets = (k / 32)[:, np.newaxis] * 1j + k / 32
    counts = block_of(name)(offsets)
    assert (np.hstack([block_of(name)(offsets[:, :7]), block_of(name)(offsets[:, 7:])]) == counts).all()
    aside = tuple(o + Fraction(part, 8) * Fraction(2) ** unit for o, part in zip(origin, (3, -2), strict=True))
    other = Held(reference_orbit(aside, unit - 3, max_iter))
    assert (DeepFunction(max_iter, ("escape_time",), other)(8 * offsets - (3 - 2j)) == counts).all()


def test_where_binary64_still_resolves_a_view_its_counts_are_others():
    """200 bits agree with the proven counts; of the fast kernel, many are those of displaced samples."""
    cx, cy = -0.743643887037151, 0.131825904205330
    k = np.arange(-24, 24)
    offsets = (k / 64)[:, np.newaxis] * 1j + k / 64  # in units of 2^-40: every sample is a binary64 number
    c = (cx + np.ldexp(offsets.real, -40)) + 1j * (cy + np.ldexp(offsets.imag, -40))
    held = Held(reference_orbit((Fraction(cx), Fraction(cy)), -40, 5000))
    proven = DeepFunction(5000, ("escape_time",), held)(offsets)
    assert last_counts().unproven == 0
    differ = np.flatnonzero(proven != KERNELS["numba"](5000)(c))
    assert 200 < differ.size < 1500
    for i in differ[::20]:
        x, y = (int(part * 2**200) for part in (Fraction(c.flat[i].real), Fraction(c.flat[i].imag)))
        zx, zy, n = x, y, 1
        while zx * zx + zy * zy <= 4 << 400 and n < 5000:
            zx, zy, n = (zx * zx - zy * zy >> 200) + x, (zx * zy >> 199) + y, n + 1
        assert proven.flat[i] == n


@pytest.mark.parametrize("origin", [(0, 0), (-1, 0), (-2, 0), (0, 1), (5, 0), (Fraction(1, 3), 2**50)])
def test_origins_whose_orbits_are_exact_tiny_or_gone_at_once_serve_as_references(origin):
    origin = tuple(map(Fraction, origin))
    held = Held(reference_orbit(origin, -300, 200))
    offsets = np.array([0, 1e-300, 1, 1j, -0.25 - 0.5j, 3e80j])
    counts = DeepFunction(200, ("escape_time",), held)(offsets)
    assert last_counts().unproven == 0
    for offset, n in zip(offsets.tolist(), counts, strict=True):
        parts = (Fraction(offset.real), Fraction(offset.imag))
        c = tuple(o + part * Fraction(2) ** -300 for o, part in zip(origin, parts, strict=True))
        assert count(c, 200, 2000) == Count(n, True)


def digest(name):
    found = block_of(name, ("escape_time", "smooth", "distance"))(samples(name)[0])
    return sha256(found["escape_time"].tobytes() + found["distance"].tobytes()).hexdigest()


def test_code_for_another_cpu_gives_the_same_bits():
    name = "random walk 21-23"
    program = f"import test_kernels_deep as t; print(t.digest({name!r}))"
    generic = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parent, env=generic, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(name)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"fields": ("smooth",)}, "fields"), ({"fields": "escape_time"}, "fields"), ({"proof": "some"}, "proof")],
)
def test_bad_fields_and_proofs_are_refused(wrong, says):
    fields = wrong.pop("fields", ("escape_time",))
    with pytest.raises(ConfigError, match=says):
        block_function(Exact(VIEW, **wrong), 10, fields)


@pytest.mark.parametrize(("c", "n"), [((2, 0), 2), ((0, -2), 2), ((Fraction(6, 5), Fraction(8, 5)), 2), ((1, 0), 3)])
def test_orbits_that_are_2_from_0_in_their_first_steps_are_decided(c, n):
    c = tuple(map(Fraction, c))
    assert count(c, 100, 300) == Count(n, True)
    ended = count(c, 100, 300, to_bailout=True)
    assert (ended.n, ended.proven) == (n, True) and abs(complex(ended.x, ended.y)) > 2**20
    further = c[0] * (1 + Fraction(1, 2**700)), c[1]  # more than the bits to begin with tell
    assert count(further, 100, 300, to_bailout=True).proven
    assert count(c, 1, 300) == Count(1, True)


def test_every_sample_of_the_square_about_the_set_is_proven():
    view = View((-2, 2), (-2, 2), (33, 33)).in_exact_arithmetic()
    found = block_function(Exact(view), 100, ("escape_time", "smooth"))(view.block((0, 33), (0, 33)))
    assert last_counts().unproven == 0 and (found["escape_time"][[0, 16, 16], [16, 0, 32]] == [2, 100, 2]).all()


def test_a_reference_of_more_digits_than_python_writes_has_a_key():
    held = Held(reference_orbit((Fraction(-7, 4) + Fraction(1, 2**15000), Fraction(0)), -15000, 5))
    other = Held(reference_orbit((Fraction(-7, 4) - Fraction(1, 2**15000), Fraction(0)), -15000, 5))
    assert held.key != other.key and "unit=-15000" in repr(held.reference)


def test_an_orbit_in_too_few_bits_proves_nothing_where_the_step_before_its_escape_is_near_2():
    re = Fraction(-104561741329259466309873618653, 140737488355328 * 10**15)
    im = Fraction(3716871571319157536225346523, 28147497671065600 * 10**12)
    few = third.counted((re, im), 600, 24, False, third.first_two((re, im)))
    assert (few.n, few.proven) == (44, False) and count((re, im), 600, 24).n == 43


def test_a_nucleus_with_many_more_digits_than_the_view_needs_takes_few_attempts():
    """The real root of c^3 + 2 c^2 + c + 1, to 600 digits, for a view of 2^-60."""
    one, c = 10**600, -1755 * 10**597
    for _ in range(10):
        c -= (c**3 + 2 * c * c * one + c * one**2 + one**3) // (3 * c * c + 4 * c * one + one**2)
    told = []
    r = reference_orbit((Fraction(c, one), Fraction(0)), -60, 5000, lambda *news: told.append(news))
    assert told.count((4096, 5000)) <= 5  # each with up to twice the bits; by what is missing alone, eight
    assert r.length == 5000 and r.error <= -118


def test_a_reference_tells_how_far_it_is_and_can_be_cancelled():
    told = []
    with pytest.raises(ZeroDivisionError):
        reference_orbit((Fraction(-1), Fraction(1, 10**30)), -100, 10**9, lambda *news: told.append(news) or 1 / 0)
    assert told == [(4096, 10**9)]


def test_of_2000_random_deep_samples_none_is_proven_and_wrong():
    pytest.importorskip("gmpy2")
    from deep_truth import Place

    total = sum(Place(seed, 50 + 12 * seed, 2000).check(100) for seed in range(20))
    size, second, _, unproven, wrong, _ = total.tolist()
    assert (size, unproven, wrong) == (2000, 0, 0)
    assert second > 10  # some that doubles cannot decide are among them
