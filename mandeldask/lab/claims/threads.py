"""What NumPy runs on several threads: linear algebra, reductions, element-wise operations."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import threadpoolctl

from mandeldask.lab import machine
from mandeldask.lab.claims.claim import (
    FASTER,
    PARALLEL,
    Claim,
    Setting,
    Verdict,
    at_work,
    cores_claim,
    threads_at_work,
    too_few_cores,
)
from mandeldask.lab.timing import Call, Spread, in_turns, ratio


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
            needs=0,
        )
    ]


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
    few = too_few_cores(key, says)
    if few:
        return few
    blas = machine.blas()
    calls = {"all": call, "one": call} if blas["recognised"] else {"all": call}
    one_thread = partial(threadpoolctl.ThreadpoolController().limit, limits=1, user_api="blas")
    runs = in_turns(calls, setting.turns, setting.seconds, within={"one": one_thread})
    threads, cores = threads_at_work(runs["all"]), Spread.of([r.cores for r in runs["all"]])
    parallel = threads.median > PARALLEL
    figure = at_work(threads, cores)
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
    return Claim(key, says, verdict, figure, why, noise or gain.near(FASTER), values, needs=blas["threads"])


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
    few = too_few_cores(key, says)
    if few:
        return few
    runs = in_turns({"call": call}, setting.turns, setting.seconds)["call"]
    return cores_claim(key, says, runs, why, "something in it runs threads on this build of NumPy")
