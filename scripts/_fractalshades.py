"""Fractalshades at one place, for `bench_deep peer`, run by an interpreter that has it.

The place is its argument, as JSON. It prints its version, and reads thresholds of Fractalshades' bilinear
approximation, a line each, null for the default. It answers each with the CPU seconds of one thread for all samples,
and with their counts.
"""

import json
import os
import sys
import tempfile
import time
from functools import cache

import fractalshades
import numpy as np
from fractalshades.models import Perturbation_mandelbrot
from mpmath import mpf

SIDE = 1024  # of the view
MORE = 20  # digits, so that its reference is not what errs


class Samples(Perturbation_mandelbrot):
    """Computes the samples that it is given, in place of a grid's."""

    def chunk_pixel_pos(self, *_):
        return self.samples


def at(place: dict, folder: str) -> Samples:
    fractal = Samples(folder)
    x, y = place["origin"]
    span = mpf(2) ** (place["unit"] + 1)
    digits = max(len(x), len(y)) + MORE
    fractal.zoom(precision=digits, x=x, y=y, dx=span, nx=SIDE, xy_ratio=1.0, theta_deg=0.0)
    fractal.samples = (np.array(place["x"]) + 1j * np.array(place["y"])[:, np.newaxis]) / 2  # of the span
    return fractal


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it prints while it computes
    fractalshades.settings.verbosity = 0
    place = json.loads(sys.argv[1])
    print(json.dumps(fractalshades.__version__), file=answers, flush=True)

    @cache
    def prepare(threshold: float | None) -> str:
        """The name of the calculation, its reference and approximation made."""
        name = f"threshold {threshold}"
        chosen = {} if threshold is None else {"BLA_eps": threshold}
        fractal.calc_std_div(
            calc_name=name, subset=None, max_iter=place["max_iter"], M_divergence=2.0, epsilon_stationnary=0.001,
            calc_dzndc=False, **chosen,
        )  # fmt: skip
        return name

    with tempfile.TemporaryDirectory() as folder:
        fractal = at(place, folder)
        for line in sys.stdin:
            name = prepare(json.loads(line))
            start = time.thread_time()
            found = fractal.evaluate_rawdata_final(name, None, {"jitter": False, "supersampling": "None"})
            answer = {"seconds": time.thread_time() - start, "counts": found[-1][0].tolist()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
