"""The Mandelbrot loop: its cores, its mask, and what threads and processes make of it."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mandeldask.lab import lesson
from mandeldask.lab.claims.claim import FASTER, PARALLEL, Claim, Setting, cores_claim, too_few_cores
from mandeldask.lab.pools import spawned
from mandeldask.lab.timing import Call, Spread, in_turns, ratio


def naive_loop(setting: Setting) -> list[Claim]:
    says = "the naive loop is not parallelised: NumPy's multithreading does not reach it"
    few = too_few_cores("naive", says)
    if few:
        return [few]
    naive = partial(lesson.masked_loop, _samples(setting.field), setting.max_iter)
    runs = in_turns({"naive": naive}, setting.turns, setting.seconds)["naive"]
    claim = cores_claim("naive", says, runs, "", "")
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
            needs=0,
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
    few = too_few_cores("mask", says)
    if few:
        return [few, costs]
    runs = in_turns({"whole": partial(_unmasked_loop, c, setting.max_iter)}, setting.turns, setting.seconds)["whole"]
    whole = cores_claim("mask", says, runs, "", "")
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
            needs=0,
        ),
        costs,
    ]


def processes(setting: Setting) -> list[Claim]:
    """Halves of the field, one after the other, in two threads, and in two processes that are up already."""
    needs = "to get round the GIL, the loop needs processes: threads will not do"
    says = "separate processes run independently, and so use the cores"
    few = too_few_cores("GIL", needs)
    if few:
        return [few, replace(few, key="processes", says=says)]
    x, y = np.linspace(-2, 1, setting.field), np.linspace(-1.5, 1.5, setting.field)
    halves = [(x, half, setting.max_iter) for half in (y[: y.size // 2], y[y.size // 2 :])]
    with (
        spawned(2) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        pool.starmap(lesson.corrected_worker, halves, chunksize=1)  # both processes are up
        calls: dict[str, Call] = {
            "serial": lambda: [lesson.corrected_worker(*half) for half in halves],
            "threads": lambda: list(threads.map(lesson.corrected_worker, *zip(*halves, strict=True))),
            "processes": lambda: pool.starmap(lesson.corrected_worker, halves, chunksize=1),
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
            needs=2,
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
