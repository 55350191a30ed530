"""Facts about the Mandelbrot set, with their sources, against every kernel."""

from __future__ import annotations

from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from kernel_contract import ON_CPU

from mandeldask.config import load
from mandeldask.kernels import KERNELS
from mandeldask.view import View

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))

# z_p(c) = 0: centres of components, by exact period
NUCLEI = {
    3: [-1.7548776662466927, -0.1225611668766536 + 0.7448617666197442j],
    4: [-1.9407998065294847, -1.3107026413368330, 0.2822713907669139 + 0.5300606175785253j],
}


@pytest.mark.parametrize("name", ON_CPU)
def test_nuclei_do_not_escape_and_come_back_to_zero(name):
    """The critical orbit of a nucleus is periodic; a rounded one stays within rounding of it, as the cycle attracts."""
    for period, centres in NUCLEI.items():
        c = np.array([v for centre in centres for v in (centre, np.conj(centre))])
        assert KERNELS[name](5000)(c).tolist() == [5000] * c.size
        z = np.zeros_like(c)
        for _ in range(period):
            z = z * z + c
        assert np.abs(z).max() < 1e-14


@pytest.mark.parametrize("name", ON_CPU)
def test_misiurewicz_points_whose_orbits_binary64_holds_exactly_never_escape(name):
    """-2 -> 2 -> 2 ..., i -> -1 + i -> -i -> -1 + i ...: all exact in binary64."""
    assert KERNELS[name](100_000)(np.array([-2, 1j, -1j])).tolist() == [100_000] * 3


@pytest.mark.parametrize("name", ON_CPU)
def test_samples_within_the_cardioid_and_the_disc_never_escape(name):
    angle = np.linspace(0, 2 * np.pi, 50)
    multiplier = 0.97 * np.exp(1j * angle)
    cardioid, disc = multiplier / 2 - multiplier**2 / 4, -1 + multiplier / 4
    assert (KERNELS[name](3000)(np.concatenate([cardioid, disc])) == 3000).all()


@pytest.mark.parametrize("name", ["numba", "numpy-compact"])
def test_the_area_of_the_set_is_bracketed_and_falls_towards_it(name):
    """1.5065918849 (Foerstemann 2012); rigorous bounds 1.50296686 < A < 1.57012937 (Fisher and Hill).

    A finite max_iter counts too many samples, fewer the larger it is.
    """
    view = View((-2.1, 0.6), (-1.2, 1.2), (1200, 1350), "pixel")  # no row of samples on the real axis
    c = view.block((0, 1200), (0, 1350))
    areas = [np.count_nonzero(KERNELS[name](m)(c) == m) * view.cell_area for m in (100, 1000, 5000)]
    assert areas[0] > areas[1] > areas[2] > 1.50296686
    assert areas[1] < 1.57012937
    assert abs(areas[2] - 1.5065918849) < 2e-3


# The smallest n with |z_n| > 2 along lines towards the boundary, by the Online Encyclopedia of Integer Sequences, at
# c for k = 0, 1, ...; and what binary64 gives where c, or the orbit, is rounded to another count.
LINES = {
    "A097486": (lambda t: -0.75 + 1j * t, [3, 33, 315, 3143, 31417, 314160, 3141593], {}),
    "A299415": (
        lambda t: 0.25 + t + 0j,
        [2, 8, 30, 97, 312, 991, 3140, 9933, 31414, 99344, 314157, 993457, 3141591],
        {3141591: 3141625},
    ),
    "A300078": (
        lambda t: -1.25 - t * t + 1j * t,
        [1, 18, 159, 1586, 15731, 157085, 1570800, 15707976],
        {15707976: 15707978},
    ),
}
SECONDS = {"numpy": 10**4, "numpy-compact": 10**5}  # steps that they take in one


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("line", LINES)
def test_escape_times_along_lines_are_those_of_the_encyclopedia(name, line):
    point, counts, missed = LINES[line]
    known = [n for n in counts if n <= SECONDS.get(name, 10**8)]
    c = np.array([point(float(f"1e-{k}")) for k in range(len(known))])
    assert KERNELS[name](max(known) + 100)(c).tolist() == [missed.get(n, n) for n in known]


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    ("n", "digest"), [(8, "345a5154c0ca99c0bb0a2c25713771b5"), (504, "15c00e9a39837854b019d7d1c4c04d30")]
)
def test_the_bitmaps_are_those_of_the_benchmarks_game(name, n, digest):
    """|z_50| <= 2, eight samples a byte: MD5 as published in hanabi1224/Programming-Language-Benchmarks."""
    k = 2.0 * np.arange(n) / n
    stays = KERNELS[name](51)((k - 1.5) + 1j * (k - 1.0)[:, np.newaxis]) == 51
    assert md5(np.packbits(stays, axis=1).tobytes()).hexdigest() == digest


@pytest.mark.parametrize("name", ["numba", "numpy-compact"])
def test_the_area_of_the_fourth_lemniscate(name):
    """|z_4| <= 2, a smooth curve: 3.279185833386682."""
    view = View((-2.0, 0.5625), (-1.28125, 1.28125), (2000, 2000), "pixel")
    counted = np.count_nonzero(KERNELS[name](5)(view.block((0, 2000), (0, 2000))) == 5)
    assert counted * view.cell_area == pytest.approx(3.279185833386682, abs=1e-4)


@pytest.mark.parametrize(
    ("centre", "area"),
    [
        (-1.759672, 5.1023e-4),  # period 3
        (-0.158 + 1.0333j, 1.0334e-4),  # period 4
        (-1.477333, 3.7841e-5),  # period 6
        (0.358431 + 0.643507j, 3.4253e-5),  # period 5
    ],
)
def test_the_areas_of_small_copies_of_the_set(centre, area):
    """R. Munafo, *Mu-Ency*: the window is as much larger than the copy as one of three units is than the set."""
    span = 3 * (area / 1.5065918849) ** 0.5
    view = View.around((centre.real, centre.imag), span, (800, 800), "pixel")
    counted = np.count_nonzero(KERNELS["numba"](20_000)(view.block((0, 800), (0, 800))) == 20_000)
    assert counted * view.cell_area == pytest.approx(area, rel=0.005)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_field_is_the_same_at_the_conjugate_and_capped_the_same_at_any_max_iter(name):
    c = View.around(("-0.745", "0.113"), "0.01", (60, 80)).block((0, 60), (0, 80))
    field = KERNELS[name](500)(c)
    assert np.array_equal(KERNELS[name](500)(c.conj()), field)
    assert np.array_equal(KERNELS[name](120)(c), np.minimum(field, 120))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "numba"])
def test_kernels_agree_on_every_config(config, name):
    """On a lattice over the whole of the config's view, at its own max_iter."""
    description = load(config, ["view.shape=[24,24]"])
    c = description.view.block((0, 24), (0, 24))
    expected = KERNELS["numba"](description.max_iter)(c)
    assert np.array_equal(KERNELS[name](description.max_iter)(c), expected)
