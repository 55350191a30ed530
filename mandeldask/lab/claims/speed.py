"""What NumPy gains in one thread: against Python's math, and by SIMD."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing.pool import Pool

import numpy as np

from mandeldask.lab import machine
from mandeldask.lab.claims.claim import FASTER, Claim, Setting, all_faster
from mandeldask.lab.pools import spawned
from mandeldask.lab.timing import Call, Spread, clocked, in_turns, ratio, repeats_for

SIMD_NAMES = ("x + y, float64", "np.sqrt, float64", "np.exp, float64", "np.sum, float64", "z ** 2, complex128")


def math_library(setting: Setting) -> list[Claim]:
    values = np.linspace(0, 1, setting.small).tolist()
    array, one = np.array(values), values[1]
    runs = in_turns(
        {
            "math": lambda: [math.sqrt(v) for v in values],
            "numpy": lambda: np.sqrt(array),
            "math, one": lambda: math.sqrt(one),
            "numpy, one": lambda: np.sqrt(one),
        },
        setting.turns,
        setting.seconds,
    )
    many, single = ratio(runs["math"], runs["numpy"]), ratio(runs["math, one"], runs["numpy, one"])
    verdict, noise = all_faster([many, single])
    return [
        Claim(
            "math",
            "NumPy gives better speed than the built-in math library",
            verdict,
            f"{many.text('x')} on {setting.small} numbers, {single.text('x')} on one",
            "one call works through a whole array without Python; on a single number that call costs more than the sum",
            noise,
            {"array": asdict(many), "scalar": asdict(single)},
        )
    ]


def simd_dispatch(setting: Setting) -> list[Claim]:
    says = "at import, NumPy detects the CPU's features and selects the most optimised kernel"
    features = machine.simd()
    if not features["found"]:
        why = "NumPy has no loops here beyond its baseline, or they are switched off: there is nothing to select"
        return [Claim("simd", says, "not measurable here", f"baseline {' '.join(features['baseline'])}", why)]
    with ExitStack() as stack:
        fast = stack.enter_context(_fresh_process(""))
        plain = stack.enter_context(_fresh_process(" ".join(features["found"])))
        left = plain.apply(machine.simd)["found"]
        if left:
            return [Claim("simd", says, "not measurable here", "", f"NumPy did not switch off {' '.join(left)}")]
        spreads = {}
        for name in SIMD_NAMES:
            repeats = fast.apply(_simd_repeats, (name, setting.small, setting.seconds))
            turns = []
            for turn in range(setting.turns):
                order = (fast, plain) if turn % 2 == 0 else (plain, fast)
                seconds = {p: p.apply(_simd_seconds, (name, setting.small, repeats)) for p in order}
                turns.append(seconds[plain] / seconds[fast])
            spreads[name] = Spread.of(turns)
    same = [name for name, s in spreads.items() if s.median <= FASTER]
    verdict, noise = all_faster(list(spreads.values()))
    return [
        Claim(
            "simd",
            says,
            verdict,
            "; ".join(f"{name} {s.text('x')}" for name, s in spreads.items()),
            f"the same in two processes, one with {' '.join(features['found'])} switched off; "
            + (
                f"{', '.join(same)}: one version of the loop, or one that waits for data" if same else "each loop gains"
            ),
            noise,
            {name: asdict(s) for name, s in spreads.items()},
        )
    ]


@contextmanager
def _fresh_process(disabled: str) -> Iterator[Pool]:
    """A process of its own whose NumPy is imported with these features switched off."""
    before = os.environ.get("NPY_DISABLE_CPU_FEATURES")
    os.environ["NPY_DISABLE_CPU_FEATURES"] = disabled
    try:
        pool = spawned(1)  # takes the environment with it
    finally:
        if before is None:
            del os.environ["NPY_DISABLE_CPU_FEATURES"]
        else:
            os.environ["NPY_DISABLE_CPU_FEATURES"] = before
    with pool:
        yield pool


def _simd_call(name: str, n: int) -> Call:
    x, y, out = np.linspace(0.1, 1, n), np.linspace(1, 2, n), np.empty(n)
    z, zz = x[: n // 2] + 1j * y[: n // 2], np.empty(n // 2, np.complex128)
    calls: dict[str, Call] = {
        "x + y, float64": lambda: np.add(x, y, out=out),
        "np.sqrt, float64": lambda: np.sqrt(x, out=out),
        "np.exp, float64": lambda: np.exp(x, out=out),
        "np.sum, float64": lambda: np.sum(x),
        "z ** 2, complex128": lambda: np.square(z, out=zz),
    }
    return calls[name]


def _simd_repeats(name: str, n: int, seconds: float) -> int:
    return repeats_for(_simd_call(name, n), seconds)


def _simd_seconds(name: str, n: int, repeats: int) -> float:
    return clocked(_simd_call(name, n), repeats).wall
