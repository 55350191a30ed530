"""The lesson's claims, each put to the test: a verdict, the measured figure and one sentence why."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from multiprocessing.pool import Pool

import numpy as np
import threadpoolctl
from dask.system import cpu_count
from numpy.typing import NDArray

from mandeldask.lab import Call, Row, Run, Spread, Tell, in_turns, lesson, machine, ratio
from mandeldask.lab.workload import Depth
from mandeldask.text import plural

PARALLEL = 1.25  # all threads' CPU seconds over the calling thread's, above which others worked too
FASTER = 1.2  # times as fast, above which it counts
SIMD_SWITCH = "NPY_DISABLE_CPU_FEATURES"
SETTLE_SECONDS = 0.25  # a BLAS's threads spin so long, at most, after a call: CPU seconds that belong to no other
LOOP_PARTS = ("mask", "gather", "arithmetic", "scatter")

_THREADS = "NumPy uses multithreading for "
SAYS = {  # the lesson's sentence, or its gist
    "math": "NumPy gives better speed than the built-in math library",
    "simd": "at import, NumPy detects the CPU's features and selects the most optimised kernel",
    "layer": "NumPy does not manage threads itself; it relies on libraries such as OpenMP and pthreads",
    "dot": f"{_THREADS}np.dot of two vectors",
    "matmul": f"{_THREADS}np.dot and np.matmul of matrices",
    "inv": f"{_THREADS}np.linalg.inv",
    "sum": f"{_THREADS}np.sum",
    "mean": f"{_THREADS}np.mean",
    "std": f"{_THREADS}np.std",
    "add": f"{_THREADS}x + y",
    "sqrt": f"{_THREADS}np.sqrt",
    "exp": f"{_THREADS}np.exp",
    "naive": "the naive loop is not parallelised: NumPy's multithreading does not reach it",
    "mask": "updating only where |z| <= 2 is what disrupts NumPy's parallel execution",
    "mask cost": "the escape-time loop is not vectorised efficiently",
    "GIL": "to get round the GIL, the loop needs processes: threads will not do",
    "processes": "separate processes run independently, and so use the cores",
}
NO_THREADS = "NumPy's own loops, and what BLAS does not split, run in the calling thread: with SIMD, without threads"
WHY_ALONE = {
    "naive": "every statement of it is a loop of NumPy's own, and each of these runs in the calling thread",
    "mask": "the same loop without its mask uses one core too: element-wise operations never use more",
}


def measure(depth: Depth, tell: Tell = lambda _: None) -> Row:
    """Every claim, in the lesson's order. An experiment that fails says so in its rows; the rest goes on."""
    found: list[Row] = []
    for title, (keys, experiment, cores) in EXPERIMENTS.items():
        tell(f"claims: {title}")
        if cpu_count() < cores:
            found += [_unable(key, "one core cannot show whether more would be used") for key in keys]
            continue
        try:
            found += experiment(depth)
        except Exception as error:
            found += [_unable(key, f"the experiment failed: {type(error).__name__}: {error}") for key in keys]
    return {"claims": found}


def _claim(key: str, verdict: str, figure: str, why: str, noise: bool = False, **values: Spread) -> Row:
    """What an experiment says of a sentence of the lesson.

    The `figure` is for a reader, medians with quartiles in brackets, and `values` hold the same for a program. `noise`
    says that the threshold lies within the noise: another run may say otherwise.
    """
    row = {"key": key, "says": SAYS[key], "verdict": verdict, "figure": figure, "why": why, "noise": noise}
    return row | {"values": {name: asdict(spread) for name, spread in values.items()}}


def _unable(key: str, why: str) -> Row:
    return _claim(key, "not measurable here", "", why)


def _all_faster(gains: Sequence[Spread]) -> tuple[str, bool]:
    """Whether all, some or none gain; within the noise where those near the threshold could change that."""
    faster = {gain.median > FASTER for gain in gains}
    sure = {gain.median > FASTER for gain in gains if not gain.near(FASTER)}
    verdict = "depends" if len(faster) == 2 else "true" if True in faster else "false"
    return verdict, len(sure) < 2 and any(gain.near(FASTER) for gain in gains)


# What NumPy gains in one thread


def _math_library(depth: Depth) -> list[Row]:
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
    verdict, noise = _all_faster([many, single])
    figure = f"{many.text('x')} on {depth.small} numbers, {single.text('x')} on one"
    why = "one call works through a whole array without Python; on a single number that call costs more than the sum"
    return [_claim("math", verdict, figure, why, noise, array=many, scalar=single)]


def _simd_dispatch(depth: Depth) -> list[Row]:
    features = " ".join(machine.simd()["found"])
    if not features:
        why = "NumPy has no loops here beyond its baseline, or they are switched off: there is nothing to select"
        return [_unable("simd", why)]
    arguments = depth.small, depth.seconds
    turns = []
    with _without_simd() as plain:
        for _ in range(depth.turns):
            fast, slow = _simd_seconds(*arguments), plain.apply(_simd_seconds, arguments)
            turns.append({name: slow[name] / fast[name] for name in fast})
    gains = {name: Spread.of([turn[name] for turn in turns]) for name in turns[0]}
    same = ", ".join(name for name, gain in gains.items() if gain.median <= FASTER)
    verdict, noise = _all_faster(list(gains.values()))
    figure = "; ".join(f"{name} {gain.text('x')}" for name, gain in gains.items())
    why = f"{same}: one version of the loop, or one that waits for data" if same else "each loop gains"
    return [_claim("simd", verdict, figure, f"against a process with {features} switched off; {why}", noise, **gains)]


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


def _blas_library(_: Depth) -> list[Row]:
    blas = machine.blas()
    name = blas["name"]
    if not blas["recognised"]:
        return [_unable("layer", f"threadpoolctl does not know NumPy's BLAS ({name})")]
    openmp = [pool["internal_api"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
    loaded = f"OpenMP is loaded too ({', '.join(openmp)})" if openmp else "no OpenMP is loaded"
    figure = f"{name} {blas['version']}, {plural(blas['threads'], 'thread')}, {blas['threading']}"
    return [_claim("layer", "true", figure, f"the only threads are those of {name}; {loaded}")]


def _threads(depth: Depth) -> list[Row]:
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


def _threaded(key: str, call: Call, depth: Depth) -> Row:
    """Whether a call uses more than one thread, and if so how much faster it is than with one BLAS thread."""
    blas = machine.blas()
    time.sleep(SETTLE_SECONDS)
    runs = in_turns({key: call}, depth.turns, depth.seconds)[key]
    if _threads_of(runs).median <= PARALLEL or not blas["recognised"]:
        return _threads_claim(key, runs, blas["name"])
    limit = threadpoolctl.ThreadpoolController().limit

    def one_thread() -> None:
        with limit(limits=1, user_api="blas"):
            call()

    both = in_turns({"all": call, "one": one_thread}, depth.turns, depth.seconds)
    return _threads_claim(key, runs, blas["name"], speedup=ratio(both["one"], both["all"]))


def _threads_claim(key: str, runs: Sequence[Run], blas: str, **speedup: Spread) -> Row:
    """Whether other threads than the caller's worked: those of the BLAS of that name, as NumPy has none of its own.

    `speedup`, where it was measured, is against one BLAS thread.
    """
    threads, cores = _threads_of(runs), Spread.of([r.cores for r in runs])
    parallel, noise = threads.median > PARALLEL, threads.near(PARALLEL)
    verdict = "true" if parallel != (key == "naive") else "false"
    figure = f"{threads.median:.2f} threads at work, {cores.text()} cores in use"
    why = f"{blas} splits the work over threads of its own" if parallel else WHY_ALONE.get(key, NO_THREADS)
    for gain in speedup.values():
        figure, noise = f"{figure}, {gain.text('x')} against one BLAS thread", noise or gain.near(FASTER)
        if gain.median <= FASTER:
            verdict, why = "depends", f"{why}, and gains nothing by them at this size"
    return _claim(key, verdict, figure, why, noise, cores=cores, threads=threads, **speedup)


def _threads_of(runs: Sequence[Run]) -> Spread:
    return Spread.of([r.threads for r in runs])


# The Mandelbrot loop


def _mask_cost(depth: Depth) -> list[Row]:
    parts = [_parts_of_the_loop(_samples(depth.loop[0]), depth.loop[1]) for _ in range(depth.turns)]
    shares = {name: Spread.of([p[name] / sum(p.values()) for p in parts]) for name in LOOP_PARTS}
    share = Spread.of([1 - p["arithmetic"] / sum(p.values()) for p in parts])
    each = ", ".join(f"{name} {s.median:.0%}" for name, s in shares.items())
    figure = f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%}) of the time is masking: {each}"
    why = (
        "selecting and putting back costs more than the arithmetic it saves; that each step needs the one before is "
        "no hindrance: all samples of a step are independent"
    )
    return [_claim("mask cost", "true" if share.median > 0.5 else "depends", figure, why, share.near(0.5), **shares)]


def _processes(depth: Depth) -> list[Row]:
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
    verdict = "true" if between.median > FASTER else "false"
    figure = f"two threads {by_threads.text('x')}, two processes {by_processes.text('x')}"
    why = "NumPy lets the GIL go inside its loops; Python's part between them holds it"
    spreads = {"threads": by_threads, "processes": by_processes, "processes_over_threads": between}
    if not machine.has_gil():
        why = "this Python has no GIL"
    gil = _claim("GIL", verdict, figure, why, between.near(FASTER), **spreads)
    verdict = "true" if by_processes.median > PARALLEL else "depends"
    figure = f"{by_processes.text('x')} with two processes that are up already"
    why = (
        "each process has a GIL of its own; to start them and to bring results back costs time, which a small field "
        "does not repay"
    )
    return [gil, _claim("processes", verdict, figure, why, by_processes.near(PARALLEL), speedup=by_processes)]


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


# What an experiment measures, and the usable cores without which it cannot
EXPERIMENTS: dict[str, tuple[tuple[str, ...], Callable[[Depth], list[Row]], int]] = {
    "NumPy against math": (("math",), _math_library, 1),
    "SIMD dispatch": (("simd",), _simd_dispatch, 1),
    "threading layer": (("layer",), _blas_library, 1),
    "threads": (("dot", "matmul", "inv", "sum", "mean", "std", "add", "sqrt", "exp", "naive", "mask"), _threads, 2),
    "masking": (("mask cost",), _mask_cost, 1),
    "threads and processes": (("GIL", "processes"), _processes, 2),
}
