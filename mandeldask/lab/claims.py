"""The lesson's claims as experiments: each with a verdict, the measured figure and one sentence why."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from mandeldask.lab import lesson, machine
from mandeldask.lab.timing import Call, Neighbours, Run, Spread, Tell, clocked, in_turns, ratio, repeats_for

Verdict = Literal["true", "false", "depends", "not measurable here"]

PARALLEL = 1.25  # all threads' CPU seconds over the calling thread's, above which others worked too
FASTER = 1.2  # times as fast, above which it counts
SIMD_NAMES = ("x + y, float64", "np.sqrt, float64", "np.exp, float64", "np.sum, float64", "z ** 2, complex128")


@dataclass(frozen=True)
class Claim:
    """A sentence of the lesson, and what an experiment says of it on this machine."""

    key: str
    says: str  # the lesson's sentence, or its gist
    verdict: Verdict
    figure: str  # for a reader: medians, with quartiles in brackets
    why: str
    noise: bool = False  # the threshold lies within the noise: another run may say otherwise
    values: dict[str, Any] = field(default_factory=dict)  # the same figures for a program
    by_wall: bool = True  # judged by wall seconds, which other programs blur; CPU seconds tell in any crowd


@dataclass(frozen=True)
class Setting:
    """How much is measured: `sides` of the arrays and how many turns."""

    turns: int = 7
    seconds: float = 0.03  # at least, of one measurement
    matrix: int = 768  # rows of a square matrix: 5 MB
    vector: int = 1_000_000  # elements: 8 MB
    small: int = 2_000  # elements: 16 KB, in the first-level cache, so that SIMD shows
    field: int = 400  # samples a side of the lesson's view
    max_iter: int = 100


QUICK = Setting(turns=3, seconds=0.005, matrix=256, vector=200_000, field=80, max_iter=40)


def measure(setting: Setting | None = None, tell: Tell | None = None) -> list[Claim]:
    """Every claim, in the lesson's order. An experiment that fails says so in its row; the rest goes on."""
    setting = setting or Setting()
    claims: list[Claim] = []
    for title, experiment in EXPERIMENTS.items():
        if tell:
            tell(title)
        try:
            with Neighbours() as neighbours:
                found = experiment(setting)
            claims += [_unless_crowded(neighbours, claim) for claim in found]
        except Exception as error:
            why = f"the experiment failed: {type(error).__name__}: {error}"
            claims.append(Claim(title, title, "not measurable here", "", why))
    return claims


# Against Python's own math


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
    verdict, noise = _all_faster([many, single])
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


def _all_faster(spreads: list[Spread]) -> tuple[Verdict, bool]:
    """Whether all, some or none gain; within the noise where those near the threshold could change that."""
    gains = [s.median > FASTER for s in spreads]
    verdict: Verdict = "true" if all(gains) else "depends" if any(gains) else "false"
    sure = {gain for gain, s in zip(gains, spreads, strict=True) if not s.near(FASTER)}
    return verdict, len(sure) < 2 and any(s.near(FASTER) for s in spreads)


# SIMD and its dispatch


def simd_dispatch(setting: Setting) -> list[Claim]:
    says = "at import, NumPy detects the CPU's features and selects the most optimised kernel"
    features = machine.simd()
    if not features["found"]:
        why = "NumPy has no loops here beyond its baseline, or they are switched off: there is nothing to select"
        return [Claim("simd", says, "not measurable here", f"baseline {' '.join(features['baseline'])}", why)]
    with ExitStack() as stack:
        fast = stack.enter_context(_fresh_process(""))
        plain = stack.enter_context(_fresh_process(" ".join(features["found"])))
        left = plain.submit(machine.simd).result()["found"]
        if left:
            return [Claim("simd", says, "not measurable here", "", f"NumPy did not switch off {' '.join(left)}")]
        spreads = {}
        for name in SIMD_NAMES:
            repeats = fast.submit(_simd_repeats, name, setting.small, setting.seconds).result()
            turns = []
            for turn in range(setting.turns):
                order = (fast, plain) if turn % 2 == 0 else (plain, fast)
                seconds = {p: p.submit(_simd_seconds, name, setting.small, repeats).result() for p in order}
                turns.append(seconds[plain] / seconds[fast])
            spreads[name] = Spread.of(turns)
    same = [name for name, s in spreads.items() if s.median <= FASTER]
    verdict, noise = _all_faster(list(spreads.values()))
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
def _fresh_process(disabled: str) -> Iterator[ProcessPoolExecutor]:
    """A process of its own whose NumPy is imported with these features switched off."""
    before = os.environ.get("NPY_DISABLE_CPU_FEATURES")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        os.environ["NPY_DISABLE_CPU_FEATURES"] = disabled
        try:
            pool.submit(os.getpid).result()  # the process begins here, and takes the environment with it
        finally:
            if before is None:
                del os.environ["NPY_DISABLE_CPU_FEATURES"]
            else:
                os.environ["NPY_DISABLE_CPU_FEATURES"] = before
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


# What NumPy runs on several threads


def linear_algebra(setting: Setting) -> list[Claim]:
    random = np.random.default_rng(6)
    a, b = random.random((2, setting.matrix, setting.matrix))
    u, v = random.random((2, setting.vector))
    calls: dict[str, tuple[str, Call]] = {
        "dot": ("np.dot of two vectors", lambda: np.dot(u, v)),
        "matmul": ("np.dot and np.matmul of matrices", lambda: np.matmul(a, b)),
        "inv": ("np.linalg.inv", lambda: np.linalg.inv(a)),
    }
    return [_threaded_by_blas(key, title, call, setting) for key, (title, call) in calls.items()]


def _threaded_by_blas(key: str, title: str, call: Call, setting: Setting) -> Claim:
    """Whether a call uses more than one core, and how much faster it is than with one BLAS thread."""
    says = f"NumPy uses multithreading for {title}"
    few = _too_few_cores(key, says)
    if few:
        return few
    blas = machine.blas()
    calls = {"all": call, "one": call} if blas["recognised"] else {"all": call}
    one_thread = partial(threadpoolctl.ThreadpoolController().limit, limits=1, user_api="blas")
    runs = in_turns(calls, setting.turns, setting.seconds, within={"one": one_thread})
    threads, cores = _threads(runs["all"]), Spread.of([r.cores for r in runs["all"]])
    parallel = threads.median > PARALLEL
    figure = _at_work(threads, cores)
    values: dict[str, Any] = {"cores": asdict(cores), "threads": asdict(threads)}
    verdict: Verdict = "true" if parallel else "false"
    noise = threads.near(PARALLEL)
    if not blas["recognised"]:
        why = f"CPU seconds over wall seconds; threadpoolctl does not know this BLAS ({blas['name']}), so a comparison "
        return Claim(key, says, verdict, figure, why + "with one thread is not measurable here", noise, values)
    gain = ratio(runs["one"], runs["all"])
    values["speedup"] = asdict(gain)
    figure += f", {gain.text('x')} against one BLAS thread"
    if not parallel:
        why = f"{blas['name']} does this with one thread, though it has {blas['threads']}"
        if blas["threads"] == 1:
            why = f"{blas['name']} is set to one thread here: its environment variable or Dask's nanny says so"
        return Claim(key, says, verdict, figure, why, noise, values)
    if gain.median <= FASTER:
        verdict, why = "depends", f"{blas['name']} runs several threads, and gains nothing by them at this size"
    else:
        why = f"{blas['name']} splits the work over {blas['threads']} threads of its own ({blas['threading']})"
    return Claim(key, says, verdict, figure, why, noise or gain.near(FASTER), values)


def _unless_crowded(neighbours: Neighbours, claim: Claim) -> Claim:
    """What was judged by wall time is within the noise if other programs took the cores meanwhile."""
    if not claim.by_wall or claim.verdict == "not measurable here" or not neighbours.crowd(machine.usable_cores()):
        return claim
    crowded = f"; other programs took {neighbours.taken:.1f} cores meanwhile, so run it again on a quieter machine"
    return replace(claim, noise=True, why=claim.why + crowded)


def reductions(setting: Setting) -> list[Claim]:
    x = np.random.default_rng(6).random(setting.vector)
    calls: dict[str, Call] = {"sum": lambda: np.sum(x), "mean": lambda: np.mean(x), "std": lambda: np.std(x)}
    why = "NumPy's reductions are loops of its own, with SIMD but without threads"
    return [_one_thread(key, f"np.{key}", call, why, setting) for key, call in calls.items()]


def element_wise(setting: Setting) -> list[Claim]:
    x, y = np.random.default_rng(6).random((2, setting.vector))
    out = np.empty_like(x)
    calls: dict[str, tuple[str, Call]] = {
        "add": ("x + y", lambda: np.add(x, y, out=out)),
        "sqrt": ("np.sqrt", lambda: np.sqrt(x, out=out)),
        "exp": ("np.exp", lambda: np.exp(x, out=out)),
    }
    why = "a ufunc is one loop in the calling thread, with SIMD but without threads"
    return [_one_thread(key, title, call, why, setting) for key, (title, call) in calls.items()]


def _one_thread(key: str, title: str, call: Call, why: str, setting: Setting) -> Claim:
    says = f"NumPy uses multithreading for {title}"
    few = _too_few_cores(key, says)
    if few:
        return few
    runs = in_turns({"call": call}, setting.turns, setting.seconds)["call"]
    return _cores_claim(key, says, runs, why, "something in it runs threads on this build of NumPy")


def _cores_claim(key: str, says: str, runs: list[Run], why_not: str, why: str) -> Claim:
    """True where other threads than the caller's worked."""
    threads, cores = _threads(runs), Spread.of([r.cores for r in runs])
    parallel = threads.median > PARALLEL
    return Claim(
        key,
        says,
        "true" if parallel else "false",
        _at_work(threads, cores),
        why if parallel else why_not,
        threads.near(PARALLEL),
        {"cores": asdict(cores), "threads": asdict(threads)},
        by_wall=False,
    )


def _threads(runs: list[Run]) -> Spread:
    return Spread.of([r.threads for r in runs])


def _at_work(threads: Spread, cores: Spread) -> str:
    return f"{threads.median:.2f} threads at work, {cores.text()} cores in use"


def _too_few_cores(key: str, says: str) -> Claim | None:
    if machine.usable_cores() > 1:
        return None
    return Claim(key, says, "not measurable here", "1 usable core", "one core cannot show whether more would be used")


# BLAS


def blas_library(setting: Setting) -> list[Claim]:  # noqa: ARG001 (every experiment is called alike)
    blas = machine.blas()
    says = "NumPy does not manage threads itself; it relies on libraries such as OpenMP and pthreads"
    if not blas["recognised"]:
        why = f"threadpoolctl does not know the BLAS that NumPy was built with ({blas['name']})"
        return [Claim("layer", says, "not measurable here", "", why)]
    others = [p["internal_api"] for p in blas["pools"] if p["user_api"] == "openmp"]
    return [
        Claim(
            "layer",
            says,
            "true",
            f"{blas['name']} {blas['version']}, {blas['threads']} threads, {blas['threading']}",
            f"the only threads are those of {blas['name']}, made with {blas['threading']}"
            + (f"; OpenMP is loaded too ({', '.join(others)})" if others else "; no OpenMP is loaded"),
            values={"blas": blas},
            by_wall=False,
        )
    ]


# The Mandelbrot loop


def naive_loop(setting: Setting) -> list[Claim]:
    says = "the naive loop is not parallelised: NumPy's multithreading does not reach it"
    few = _too_few_cores("naive", says)
    if few:
        return [few]
    naive = partial(lesson.masked_loop, _samples(setting.field), setting.max_iter)
    runs = in_turns({"naive": naive}, setting.turns, setting.seconds)["naive"]
    claim = _cores_claim("naive", says, runs, "", "")
    one = claim.verdict == "false"  # the claim is that it uses one core
    why = "every statement of it is a ufunc or an indexing, and each of these runs in the calling thread"
    return [
        Claim(
            "naive",
            says,
            "true" if one else "false",
            claim.figure,
            why if one else "some statement of it runs threads on this build of NumPy",
            claim.noise,
            claim.values,
            by_wall=False,
        )
    ]


def masking(setting: Setting) -> list[Claim]:
    """Whether the mask is what keeps the loop on one core, and what the mask costs."""
    c = _samples(setting.field)
    parts = [_parts_of_the_loop(c, setting.max_iter) for _ in range(setting.turns)]
    share = Spread.of([(p["mask"] + p["gather"] + p["scatter"]) / sum(p.values()) for p in parts])
    shares = {name: Spread.of([p[name] / sum(p.values()) for p in parts]) for name in parts[0]}
    costs = Claim(
        "mask cost",
        "the escape-time loop is not vectorised efficiently",
        "true" if share.median > 0.5 else "depends",
        f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%}) of the time is masking: "
        + ", ".join(f"{name} {s.median:.0%}" for name, s in shares.items()),
        "selecting and putting back costs more than the arithmetic it saves; that each step needs the one before is "
        "no hindrance: all samples of a step are independent",
        share.near(0.5),
        {name: asdict(s) for name, s in shares.items()},
    )
    says = "updating only where |z| <= 2 is what disrupts NumPy's parallel execution"
    few = _too_few_cores("mask", says)
    if few:
        return [few, costs]
    runs = in_turns({"whole": partial(_unmasked_loop, c, setting.max_iter)}, setting.turns, setting.seconds)["whole"]
    whole = _cores_claim("mask", says, runs, "", "")
    threaded = whole.verdict == "true"
    return [
        Claim(
            "mask",
            says,
            "true" if threaded else "false",
            f"without any mask: {whole.figure}",
            "the same loop over whole arrays uses "
            + ("more than one core" if threaded else "one core too: element-wise operations never use more"),
            whole.noise,
            whole.values,
            by_wall=False,
        ),
        costs,
    ]


def processes(setting: Setting) -> list[Claim]:
    """Halves of the field, one after the other, in two threads, and in two processes that are up already."""
    needs = "to get round the GIL, the loop needs processes: threads will not do"
    says = "separate processes run independently, and so use the cores"
    few = _too_few_cores("GIL", needs)
    if few:
        return [few, replace(few, key="processes", says=says)]
    x, y = np.linspace(-2, 1, setting.field), np.linspace(-1.5, 1.5, setting.field)
    halves = [(x, half, setting.max_iter) for half in (y[: y.size // 2], y[y.size // 2 :])]
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        list(pool.map(lesson.corrected_worker, *zip(*halves, strict=True)))  # both processes are up
        calls: dict[str, Call] = {
            "serial": lambda: [lesson.corrected_worker(*half) for half in halves],
            "threads": lambda: list(threads.map(lesson.corrected_worker, *zip(*halves, strict=True))),
            "processes": lambda: list(pool.map(lesson.corrected_worker, *zip(*halves, strict=True))),
        }
        runs = in_turns(calls, setting.turns, setting.seconds)
    by_threads, by_processes = ratio(runs["serial"], runs["threads"]), ratio(runs["serial"], runs["processes"])
    between = ratio(runs["threads"], runs["processes"])
    better = between.median > FASTER
    without_gil = not getattr(sys, "_is_gil_enabled", lambda: True)()
    return [
        Claim(
            "GIL",
            needs,
            "true" if better else "false",
            f"two threads {by_threads.text('x')}, two processes {by_processes.text('x')}",
            "this Python has no GIL"
            if without_gil
            else "NumPy lets the GIL go inside its loops"
            + (
                ", but Python's part between them is too large a share"
                if better
                else ": what is left to Python is little"
            ),
            between.near(FASTER),
            {
                "threads": asdict(by_threads),
                "processes": asdict(by_processes),
                "processes_over_threads": asdict(between),
            },
        ),
        Claim(
            "processes",
            says,
            "true" if by_processes.median > PARALLEL else "depends",
            f"{by_processes.text('x')} with two processes that are up already",
            "each process has a GIL of its own; to start them and to bring results back costs time, which a small "
            "field does not repay",
            by_processes.near(PARALLEL),
            {"speedup": asdict(by_processes)},
        ),
    ]


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
    parts = {"mask": 0.0, "gather": 0.0, "arithmetic": 0.0, "scatter": 0.0}
    for _ in range(max_iter):
        start = time.perf_counter()
        mask = np.abs(z) <= 2
        masked = time.perf_counter()
        inside, here = z[mask], c[mask]
        gathered = time.perf_counter()
        stepped = inside**2 + here
        computed = time.perf_counter()
        z[mask] = stepped
        n[mask] += 1
        end = time.perf_counter()
        for name, first, last in (
            ("mask", start, masked),
            ("gather", masked, gathered),
            ("arithmetic", gathered, computed),
            ("scatter", computed, end),
        ):
            parts[name] += last - first
    return parts


EXPERIMENTS: dict[str, Callable[[Setting], list[Claim]]] = {
    "NumPy against math": math_library,
    "SIMD dispatch": simd_dispatch,
    "threading layer": blas_library,
    "dot, matmul, inv": linear_algebra,
    "sum, mean, std": reductions,
    "element-wise operations": element_wise,
    "the naive loop": naive_loop,
    "masking": masking,
    "threads and processes": processes,
}
