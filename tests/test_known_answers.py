"""Facts about the Mandelbrot set, with their sources, against every kernel."""

from __future__ import annotations

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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "numba"])
def test_kernels_agree_on_every_config(config, name):
    """On a lattice over the whole of the config's view, at its own max_iter."""
    description = load(config, ["view.shape=[24,24]"])
    c = description.view.block((0, 24), (0, 24))
    expected = KERNELS["numba"](description.max_iter)(c)
    assert np.array_equal(KERNELS[name](description.max_iter)(c), expected)
