"""The experiments behind the lesson's claims: each gives a verdict, the measured figure and one sentence why."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing.pool import Pool
from time import perf_counter

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from mandeldask.lab import lesson, machine
from mandeldask.lab.claims import (
    FASTER,
    PARALLEL,
    Claim,
    Setting,
    Verdict,
    all_faster,
    claim,
    not_measurable,
    threads_claim,
    unless_crowded,
    values_of,
)
from mandeldask.lab.timing import Call, OtherPrograms, Run, Spread, Tell, clocked, in_turns, ratio, repeats_for

SIMD_SWITCH = "NPY_DISABLE_CPU_FEATURES"
LOOP_PARTS = ("mask", "gather", "arithmetic", "scatter")


@dataclass(frozen=True)
class Experiment:
    """How some claims are measured; with fewer usable `cores` they cannot be."""

    title: str
    keys: tuple[str, ...]
    measure: Callable[[Setting], list[Claim]]
    cores: int = 2


def measure(setting: Setting | None = None, tell: Tell = lambda _: None) -> list[Claim]:
    """Every claim, in the lesson's order. An experiment that fails says so in its rows; the rest goes on."""
    return [found for experiment in EXPERIMENTS for found in _carry_out(experiment, setting or Setting(), tell)]


def _carry_out(experiment: Experiment, setting: Setting, tell: Tell) -> list[Claim]:
    tell(experiment.title)
    if machine.usable_cores() < experiment.cores:
        why = "one core cannot show whether more would be used"
        return [not_measurable(key, why, "1 usable core") for key in experiment.keys]
    try:
        with OtherPrograms() as others:
            found = experiment.measure(setting)
        return [unless_crowded(others, each) for each in found]
    except Exception as error:
        why = f"the experiment failed: {type(error).__name__}: {error}"
        return [not_measurable(key, why) for key in experiment.keys]


# What NumPy gains in one thread


def math_library(setting: Setting) -> list[Claim]:
    values = np.linspace(0, 1, setting.small).tolist()
    array, one = np.array(values), values[1]
    calls: dict[str, Call] = {
        "math": lambda: [math.sqrt(v) for v in values],
        "numpy": lambda: np.sqrt(array),
        "math, one": lambda: math.sqrt(one),
        "numpy, one": lambda: np.sqrt(one),
    }
    runs = in_turns(calls, setting.turns, setting.seconds)
    many, single = ratio(runs["math"], runs["numpy"]), ratio(runs["math, one"], runs["numpy, one"])
    verdict, noise = all_faster([many, single])
    figure = f"{many.text('x')} on {setting.small} numbers, {single.text('x')} on one"
    why = "one call works through a whole array without Python; on a single number that call costs more than the sum"
    return [claim("math", verdict, figure, why, noise, values=values_of(array=many, scalar=single))]


def simd_dispatch(setting: Setting) -> list[Claim]:
    features = machine.simd()
    found = " ".join(features["found"])
    if not found:
        why = "NumPy has no loops here beyond its baseline, or they are switched off: there is nothing to select"
        return [not_measurable("simd", why, f"baseline {' '.join(features['baseline'])}")]
    with _fresh_process("") as fast, _fresh_process(found) as plain:
        left = plain.apply(machine.simd)["found"]
        if left:
            return [not_measurable("simd", f"NumPy did not switch off {' '.join(left)}")]
        repeats = fast.apply(_simd_repeats, (setting.small, setting.seconds))
        turns = []
        for turn in range(setting.turns):
            order = (plain, fast) if turn % 2 else (fast, plain)
            seconds = {pool: pool.apply(_simd_seconds, (setting.small, repeats)) for pool in order}
            turns.append({name: seconds[plain][name] / seconds[fast][name] for name in repeats})
    gains = {name: Spread.of([turn[name] for turn in turns]) for name in repeats}
    same = ", ".join(name for name, s in gains.items() if s.median <= FASTER)
    verdict, noise = all_faster(list(gains.values()))
    figure = "; ".join(f"{name} {s.text('x')}" for name, s in gains.items())
    why = f"{same}: one version of the loop, or one that waits for data" if same else "each loop gains"
    why = f"the same in two processes, one with {found} switched off; {why}"
    return [claim("simd", verdict, figure, why, noise, values=values_of(**gains))]


@contextmanager
def _fresh_process(disabled: str) -> Iterator[Pool]:
    """A process of its own whose NumPy is imported with these features switched off."""
    before = os.environ.get(SIMD_SWITCH)
    os.environ[SIMD_SWITCH] = disabled
    try:
        pool = lesson.spawned(1)  # takes the environment with it
    finally:
        del os.environ[SIMD_SWITCH]
        if before is not None:
            os.environ[SIMD_SWITCH] = before
    with pool:
        yield pool


def _simd_calls(n: int) -> dict[str, Call]:
    x, y, out = np.linspace(0.1, 1, n), np.linspace(1, 2, n), np.empty(n)
    z, zz = x[: n // 2] + 1j * y[: n // 2], np.empty(n // 2, np.complex128)
    return {
        "x + y, float64": lambda: np.add(x, y, out=out),
        "np.sqrt, float64": lambda: np.sqrt(x, out=out),
        "np.exp, float64": lambda: np.exp(x, out=out),
        "np.sum, float64": lambda: np.sum(x),
        "z ** 2, complex128": lambda: np.square(z, out=zz),
    }


def _simd_repeats(n: int, seconds: float) -> dict[str, int]:
    return {name: repeats_for(call, seconds) for name, call in _simd_calls(n).items()}


def _simd_seconds(n: int, repeats: dict[str, int]) -> dict[str, float]:
    return {name: clocked(call, repeats[name]).wall for name, call in _simd_calls(n).items()}


# What NumPy runs on several threads


def blas_library(setting: Setting) -> list[Claim]:  # noqa: ARG001 (every experiment is called alike)
    blas = machine.blas()
    name = blas["name"]
    if not blas["recognised"]:
        return [not_measurable("layer", f"threadpoolctl does not know the BLAS that NumPy was built with ({name})")]
    others = ", ".join(p["internal_api"] for p in blas["pools"] if p["user_api"] == "openmp")
    openmp = f"OpenMP is loaded too ({others})" if others else "no OpenMP is loaded"
    figure = f"{name} {blas['version']}, {blas['threads']} threads, {blas['threading']}"
    why = f"the only threads are those of {name}, made with {blas['threading']}; {openmp}"
    return [claim("layer", "true", figure, why, values={"blas": blas}, needs=0)]


def linear_algebra(setting: Setting) -> list[Claim]:
    random = np.random.default_rng(6)
    a, b = random.random((2, setting.matrix, setting.matrix))
    u, v = random.random((2, setting.vector))
    calls: dict[str, Call] = {
        "dot": lambda: np.dot(u, v),
        "matmul": lambda: np.matmul(a, b),
        "inv": lambda: np.linalg.inv(a),
    }
    return [_threaded_by_blas(key, call, setting) for key, call in calls.items()]


def _threaded_by_blas(key: str, call: Call, setting: Setting) -> Claim:
    """Whether a call uses more than one core, and how much faster it is than with one BLAS thread."""
    blas = machine.blas()
    name, n = blas["name"], blas["threads"]
    calls = {"all": call, "one": call} if blas["recognised"] else {"all": call}
    one_thread = partial(threadpoolctl.ThreadpoolController().limit, limits=1, user_api="blas")
    runs = in_turns(calls, setting.turns, setting.seconds, within={"one": one_thread})
    alone = f"{name} does this with one thread, though it has {n}"
    if n == 1:
        alone = f"{name} is set to one thread here: its environment variable or Dask's nanny says so"
    found = threads_claim(key, runs["all"], alone, "")
    if not blas["recognised"]:
        why = f"CPU seconds over wall seconds; threadpoolctl does not know this BLAS ({name}), so a comparison with "
        return replace(found, why=why + "one thread is not measurable here", needs=1)
    gain = ratio(runs["one"], runs["all"])
    figure = f"{found.figure}, {gain.text('x')} against one BLAS thread"
    found = replace(found, figure=figure, values=found.values | values_of(speedup=gain), needs=1)
    if found.verdict == "false":
        return found
    if gain.median > FASTER:
        why = f"{name} splits the work over {n} threads of its own ({blas['threading']})"
        return replace(found, why=why, noise=found.noise or gain.near(FASTER), needs=n)
    why = f"{name} runs several threads, and gains nothing by them at this size"
    return replace(found, verdict="depends", why=why, noise=found.noise or gain.near(FASTER), needs=n)


def ufuncs(setting: Setting) -> list[Claim]:
    x, y = np.random.default_rng(6).random((2, setting.vector))
    out = np.empty_like(x)
    calls: dict[str, Call] = {
        "sum": lambda: np.sum(x),
        "mean": lambda: np.mean(x),
        "std": lambda: np.std(x),
        "add": lambda: np.add(x, y, out=out),
        "sqrt": lambda: np.sqrt(x, out=out),
        "exp": lambda: np.exp(x, out=out),
    }
    alone = {"sum": "NumPy's reductions are loops of its own, with SIMD but without threads"}
    alone["mean"] = alone["std"] = alone["sum"]
    element_wise = "a ufunc is one loop in the calling thread, with SIMD but without threads"
    together = "something in it runs threads on this build of NumPy"
    runs = {key: _runs(call, setting) for key, call in calls.items()}
    return [threads_claim(key, runs[key], alone.get(key, element_wise), together) for key in calls]


def _runs(call: Call, setting: Setting) -> list[Run]:
    return in_turns({"call": call}, setting.turns, setting.seconds)["call"]


# The Mandelbrot loop


def loops(setting: Setting) -> list[Claim]:
    """Whether the loop uses one core, and whether it is the mask that keeps it on one."""
    c = _samples(setting.field)
    naive = threads_claim(
        "naive",
        _runs(partial(lesson.masked_loop, c, setting.max_iter), setting),
        "every statement of it is a ufunc or an indexing, and each of these runs in the calling thread",
        "some statement of it runs threads on this build of NumPy",
        true_if_alone=True,
    )
    unmasked = threads_claim(
        "mask",
        _runs(partial(_unmasked_loop, c, setting.max_iter), setting),
        "the same loop over whole arrays uses one core too: element-wise operations never use more",
        "the same loop over whole arrays uses more than one core",
        figure="without any mask: ",
    )
    return [naive, unmasked]


def mask_cost(setting: Setting) -> list[Claim]:
    parts = [_parts_of_the_loop(_samples(setting.field), setting.max_iter) for _ in range(setting.turns)]
    shares = {name: Spread.of([p[name] / sum(p.values()) for p in parts]) for name in LOOP_PARTS}
    share = Spread.of([1 - p["arithmetic"] / sum(p.values()) for p in parts])
    each = ", ".join(f"{name} {s.median:.0%}" for name, s in shares.items())
    figure = f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%}) of the time is masking: {each}"
    why = (
        "selecting and putting back costs more than the arithmetic it saves; that each step needs the one before is "
        "no hindrance: all samples of a step are independent"
    )
    verdict: Verdict = "true" if share.median > 0.5 else "depends"
    return [claim("mask cost", verdict, figure, why, share.near(0.5), values=values_of(**shares))]


def processes(setting: Setting) -> list[Claim]:
    """Halves of the field, one after the other, in two threads, and in two processes that are up already."""
    x, y = np.linspace(-2, 1, setting.field), np.linspace(-1.5, 1.5, setting.field)
    halves = [(x, half, setting.max_iter) for half in (y[: y.size // 2], y[y.size // 2 :])]
    with lesson.spawned(2) as pool, ThreadPoolExecutor(2) as threads:
        in_processes = partial(pool.starmap, lesson.corrected_worker, halves, chunksize=1)
        in_processes()  # both are up
        calls: dict[str, Call] = {
            "serial": lambda: [lesson.corrected_worker(*half) for half in halves],
            "threads": lambda: list(threads.map(lesson.corrected_worker, *zip(*halves, strict=True))),
            "processes": in_processes,
        }
        runs = in_turns(calls, setting.turns, setting.seconds)
    return _threads_and_processes(runs)


def _threads_and_processes(runs: dict[str, list[Run]]) -> list[Claim]:
    by_threads, by_processes = ratio(runs["serial"], runs["threads"]), ratio(runs["serial"], runs["processes"])
    between = ratio(runs["threads"], runs["processes"])
    better = between.median > FASTER
    rest = ", but Python's part between them is too large a share" if better else ": what is left to Python is little"
    with_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    gil = claim(
        "GIL",
        "true" if better else "false",
        f"two threads {by_threads.text('x')}, two processes {by_processes.text('x')}",
        f"NumPy lets the GIL go inside its loops{rest}" if with_gil else "this Python has no GIL",
        between.near(FASTER),
        values=values_of(threads=by_threads, processes=by_processes, processes_over_threads=between),
    )
    independent = claim(
        "processes",
        "true" if by_processes.median > PARALLEL else "depends",
        f"{by_processes.text('x')} with two processes that are up already",
        "each process has a GIL of its own; to start them and to bring results back costs time, which a small field "
        "does not repay",
        by_processes.near(PARALLEL),
        values=values_of(speedup=by_processes),
        needs=2,
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
        times = [perf_counter()]
        mask = np.abs(z) <= 2
        times.append(perf_counter())
        inside, here = z[mask], c[mask]
        times.append(perf_counter())
        stepped = inside**2 + here
        times.append(perf_counter())
        z[mask] = stepped
        n[mask] += 1
        times.append(perf_counter())
        for name, (first, last) in zip(parts, pairwise(times), strict=True):
            parts[name] += last - first
    return parts


EXPERIMENTS = (
    Experiment("NumPy against math", ("math",), math_library, cores=1),
    Experiment("SIMD dispatch", ("simd",), simd_dispatch, cores=1),
    Experiment("threading layer", ("layer",), blas_library, cores=1),
    Experiment("dot, matmul, inv", ("dot", "matmul", "inv"), linear_algebra),
    Experiment("reductions, element-wise operations", ("sum", "mean", "std", "add", "sqrt", "exp"), ufuncs),
    Experiment("the loop, with its mask and without", ("naive", "mask"), loops),
    Experiment("masking", ("mask cost",), mask_cost, cores=1),
    Experiment("threads and processes", ("GIL", "processes"), processes),
)
