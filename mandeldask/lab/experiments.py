"""The experiments behind the lesson's claims: each gives a verdict, the measured figure and one sentence why."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing.pool import Pool

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from mandeldask.lab import lesson, machine
from mandeldask.lab.claims import FASTER, PARALLEL, Claim, all_faster, claim, threads_claim
from mandeldask.lab.timing import Call, Spread, Tell, in_turns, ratio
from mandeldask.lab.workload import Depth

SIMD_SWITCH = "NPY_DISABLE_CPU_FEATURES"
SETTLE_SECONDS = 0.25  # a BLAS's threads spin so long, at most, after a call: CPU seconds that belong to no other
LOOP_PARTS = ("mask", "gather", "arithmetic", "scatter")


@dataclass(frozen=True)
class Experiment:
    """How some claims are measured; with fewer usable `cores` they cannot be."""

    title: str
    keys: tuple[str, ...]
    measure: Callable[[Depth], list[Claim]]
    cores: int = 2


def measure(depth: Depth, tell: Tell = lambda _: None) -> list[Claim]:
    """Every claim, in the lesson's order. An experiment that fails says so in its rows; the rest goes on."""
    found = []
    for experiment in EXPERIMENTS:
        tell(experiment.title)
        found += _carry_out(experiment, depth)
    return found


def _carry_out(experiment: Experiment, depth: Depth) -> list[Claim]:
    if machine.usable_cores() < experiment.cores:
        why = "one core cannot show whether more would be used"
    else:
        try:
            return experiment.measure(depth)
        except Exception as error:
            why = f"the experiment failed: {type(error).__name__}: {error}"
    return [claim(key, "not measurable here", "", why) for key in experiment.keys]


# What NumPy gains in one thread


def math_library(depth: Depth) -> list[Claim]:
    values = np.linspace(0, 1, depth.small).tolist()
    array, one = np.array(values), values[1]
    calls: dict[str, Call] = {
        "math": lambda: [math.sqrt(v) for v in values],
        "numpy": lambda: np.sqrt(array),
        "math, one": lambda: math.sqrt(one),
        "numpy, one": lambda: np.sqrt(one),
    }
    runs = in_turns(calls, depth.turns, depth.seconds)
    many, single = ratio(runs["math"], runs["numpy"]), ratio(runs["math, one"], runs["numpy, one"])
    verdict, noise = all_faster([many, single])
    figure = f"{many.text('x')} on {depth.small} numbers, {single.text('x')} on one"
    why = "one call works through a whole array without Python; on a single number that call costs more than the sum"
    return [claim("math", verdict, figure, why, noise, array=many, scalar=single)]


def simd_dispatch(depth: Depth) -> list[Claim]:
    found = " ".join(machine.simd()["found"])
    if not found:
        why = "NumPy has no loops here beyond its baseline, or they are switched off: there is nothing to select"
        return [claim("simd", "not measurable here", "", why)]
    arguments = depth.small, depth.seconds
    turns = []
    with _without_simd() as plain:
        for _ in range(depth.turns):
            fast, slow = _simd_seconds(*arguments), plain.apply(_simd_seconds, arguments)
            turns.append({name: slow[name] / fast[name] for name in fast})
    gains = {name: Spread.of([turn[name] for turn in turns]) for name in turns[0]}
    same = ", ".join(name for name, gain in gains.items() if gain.median <= FASTER)
    verdict, noise = all_faster(list(gains.values()))
    figure = "; ".join(f"{name} {gain.text('x')}" for name, gain in gains.items())
    why = f"{same}: one version of the loop, or one that waits for data" if same else "each loop gains"
    return [claim("simd", verdict, figure, f"against a process with {found} switched off; {why}", noise, **gains)]


def _without_simd() -> Pool:
    """A process whose NumPy has nothing beyond its baseline."""
    before = os.environ.get(SIMD_SWITCH, "")
    os.environ[SIMD_SWITCH] = " ".join([before, *machine.simd()["found"]])
    try:
        return lesson.spawned(1)  # takes the environment with it
    finally:
        os.environ[SIMD_SWITCH] = before


def _simd_seconds(n: int, at_least: float) -> dict[str, float]:
    """Seconds of each loop on `n` floats."""
    x, y, out = np.linspace(0.1, 1, n), np.linspace(1, 2, n), np.empty(n)
    z, zz = x[: n // 2] + 1j * y[: n // 2], np.empty(n // 2, np.complex128)
    calls: dict[str, Call] = {
        "x + y, float64": lambda: np.add(x, y, out=out),
        "np.sqrt, float64": lambda: np.sqrt(x, out=out),
        "np.exp, float64": lambda: np.exp(x, out=out),
        "np.sum, float64": lambda: np.sum(x),
        "z ** 2, complex128": lambda: np.square(z, out=zz),
    }
    return {name: runs[0].wall for name, runs in in_turns(calls, 1, at_least).items()}


# What NumPy runs on several threads


def blas_library(_: Depth) -> list[Claim]:
    blas = machine.blas()
    name = blas["name"]
    if not blas["recognised"]:
        return [claim("layer", "not measurable here", "", f"threadpoolctl does not know NumPy's BLAS ({name})")]
    openmp = [pool["internal_api"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
    loaded = f"OpenMP is loaded too ({', '.join(openmp)})" if openmp else "no OpenMP is loaded"
    figure = f"{name} {blas['version']}, {blas['threads']} threads, {blas['threading']}"
    return [claim("layer", "true", figure, f"the only threads are those of {name}; {loaded}")]


def threads(depth: Depth) -> list[Claim]:
    """Which of NumPy's functions, and which loops over whole arrays, use more than the calling thread."""
    random = np.random.default_rng(6)
    a, b = random.random((2, depth.matrix, depth.matrix))
    x, y = random.random((2, depth.vector))
    out, c = np.empty_like(x), _samples(depth.loop[0])
    calls: dict[str, Call] = {
        "dot": lambda: np.dot(x, y),
        "matmul": lambda: np.matmul(a, b),
        "inv": lambda: np.linalg.inv(a),
        "sum": lambda: np.sum(x),
        "mean": lambda: np.mean(x),
        "std": lambda: np.std(x),
        "add": lambda: np.add(x, y, out=out),
        "sqrt": lambda: np.sqrt(x, out=out),
        "exp": lambda: np.exp(x, out=out),
        "naive": lambda: lesson.masked_loop(c, depth.loop[1]),
        "mask": lambda: _unmasked_loop(c, depth.loop[1]),
    }
    return [_threaded(key, call, depth) for key, call in calls.items()]


def _threaded(key: str, call: Call, depth: Depth) -> Claim:
    """Whether a call uses more than one thread, and if so how much faster it is than with one BLAS thread."""
    blas = machine.blas()
    time.sleep(SETTLE_SECONDS)
    found = threads_claim(key, in_turns({key: call}, depth.turns, depth.seconds)[key], blas["name"])
    if found.values["threads"].median <= PARALLEL or not blas["recognised"]:
        return found
    limit = threadpoolctl.ThreadpoolController().limit

    def one_thread() -> None:
        with limit(limits=1, user_api="blas"):
            call()

    runs = in_turns({"all": call, "one": one_thread}, depth.turns, depth.seconds)
    gain = ratio(runs["one"], runs["all"])
    figure = f"{found.figure}, {gain.text('x')} against one BLAS thread"
    noise = found.noise or gain.near(FASTER)
    found = replace(found, figure=figure, noise=noise, values={**found.values, "speedup": gain})
    if gain.median > FASTER:
        return found
    return replace(found, verdict="depends", why=f"{found.why}, and gains nothing by them at this size")


# The Mandelbrot loop


def mask_cost(depth: Depth) -> list[Claim]:
    parts = [_parts_of_the_loop(_samples(depth.loop[0]), depth.loop[1]) for _ in range(depth.turns)]
    shares = {name: Spread.of([p[name] / sum(p.values()) for p in parts]) for name in LOOP_PARTS}
    share = Spread.of([1 - p["arithmetic"] / sum(p.values()) for p in parts])
    each = ", ".join(f"{name} {s.median:.0%}" for name, s in shares.items())
    figure = f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%}) of the time is masking: {each}"
    why = (
        "selecting and putting back costs more than the arithmetic it saves; that each step needs the one before is "
        "no hindrance: all samples of a step are independent"
    )
    return [claim("mask cost", "true" if share.median > 0.5 else "depends", figure, why, share.near(0.5), **shares)]


def processes(depth: Depth) -> list[Claim]:
    """Halves of the field, one after the other, in two threads, and in two processes that are up already."""
    x, y = np.linspace(-2, 1, depth.loop[0]), np.linspace(-1.5, 1.5, depth.loop[0])
    halves = [(x, half, depth.loop[1]) for half in (y[: y.size // 2], y[y.size // 2 :])]
    with lesson.spawned(2) as pool, ThreadPoolExecutor(2) as threads:
        calls: dict[str, Call] = {
            "serial": lambda: [lesson.corrected_worker(*half) for half in halves],
            "threads": lambda: list(threads.map(lesson.corrected_worker, *zip(*halves, strict=True))),
            "processes": partial(pool.starmap, lesson.corrected_worker, halves, chunksize=1),
        }
        calls["processes"]()  # both are up
        runs = in_turns(calls, depth.turns, depth.seconds)
    by_threads, by_processes = ratio(runs["serial"], runs["threads"]), ratio(runs["serial"], runs["processes"])
    between = ratio(runs["threads"], runs["processes"])
    with_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    gil = claim(
        "GIL",
        "true" if between.median > FASTER else "false",
        f"two threads {by_threads.text('x')}, two processes {by_processes.text('x')}",
        "NumPy lets the GIL go inside its loops; Python's part between them holds it"
        if with_gil
        else "this Python has no GIL",
        between.near(FASTER),
        threads=by_threads,
        processes=by_processes,
        processes_over_threads=between,
    )
    independent = claim(
        "processes",
        "true" if by_processes.median > PARALLEL else "depends",
        f"{by_processes.text('x')} with two processes that are up already",
        "each process has a GIL of its own; to start them and to bring results back costs time, which a small field "
        "does not repay",
        by_processes.near(PARALLEL),
        speedup=by_processes,
    )
    return [gil, independent]


def _samples(side: int) -> NDArray[np.complex128]:
    """The lesson's view, indexed (x, y) as there."""
    return np.linspace(-2, 1, side)[:, np.newaxis] + 1j * np.linspace(-1.5, 1.5, side)


def _unmasked_loop(c: NDArray[np.complex128], max_iter: int) -> NDArray[np.complex128]:
    """The lesson's arithmetic without its mask: what has escaped goes on to infinity and NaN."""
    z = np.zeros_like(c)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(max_iter):
            z = z**2 + c
    return z


def _parts_of_the_loop(c: NDArray[np.complex128], max_iter: int) -> dict[str, float]:
    """Seconds of each part of the lesson's loop: making the mask, taking samples out, arithmetic, putting back."""
    z, n = np.zeros_like(c), np.zeros(c.shape, np.int32)
    parts = dict.fromkeys(LOOP_PARTS, 0.0)
    for _ in range(max_iter):
        times = [time.perf_counter()]
        mask = np.abs(z) <= 2
        times.append(time.perf_counter())
        inside, here = z[mask], c[mask]
        times.append(time.perf_counter())
        stepped = inside**2 + here
        times.append(time.perf_counter())
        z[mask] = stepped
        n[mask] += 1
        times.append(time.perf_counter())
        for name, (first, last) in zip(parts, pairwise(times), strict=True):
            parts[name] += last - first
    return parts


EXPERIMENTS = (
    Experiment("NumPy against math", ("math",), math_library, cores=1),
    Experiment("SIMD dispatch", ("simd",), simd_dispatch, cores=1),
    Experiment("threading layer", ("layer",), blas_library, cores=1),
    Experiment(
        "threads", ("dot", "matmul", "inv", "sum", "mean", "std", "add", "sqrt", "exp", "naive", "mask"), threads
    ),
    Experiment("masking", ("mask cost",), mask_cost, cores=1),
    Experiment("threads and processes", ("GIL", "processes"), processes),
)
