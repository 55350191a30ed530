"""The lesson's claims: what each says, and what makes it true on this machine, or lie within the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mandeldask.lab.timing import Run, Spread

Verdict = Literal["true", "false", "depends", "not measurable here"]

PARALLEL = 1.25  # all threads' CPU seconds over the calling thread's, above which others worked too
FASTER = 1.2  # times as fast, above which it counts

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


@dataclass(frozen=True)
class Claim:
    """A sentence of the lesson, and what an experiment says of it on this machine."""

    key: str
    says: str
    verdict: Verdict
    figure: str  # for a reader: medians, with quartiles in brackets
    why: str
    noise: bool = False  # the threshold lies within the noise: another run may say otherwise
    values: Mapping[str, Spread] = field(default_factory=dict)  # the same figures for a program


def claim(key: str, verdict: Verdict, figure: str, why: str, noise: bool = False, **values: Spread) -> Claim:
    return Claim(key, SAYS[key], verdict, figure, why, noise, values)


def threads_claim(key: str, runs: Sequence[Run], blas: str) -> Claim:
    """Whether other threads than the caller's worked: those of the BLAS of that name, as NumPy has none of its own."""
    threads, cores = Spread.of([r.threads for r in runs]), Spread.of([r.cores for r in runs])
    parallel = threads.median > PARALLEL
    return claim(
        key,
        "true" if parallel != (key == "naive") else "false",
        f"{threads.median:.2f} threads at work, {cores.text()} cores in use",
        f"{blas} splits the work over threads of its own" if parallel else WHY_ALONE.get(key, NO_THREADS),
        threads.near(PARALLEL),
        cores=cores,
        threads=threads,
    )


def all_faster(gains: Sequence[Spread]) -> tuple[Verdict, bool]:
    """Whether all, some or none gain; within the noise where those near the threshold could change that."""
    faster = {gain.median > FASTER for gain in gains}
    sure = {gain.median > FASTER for gain in gains if not gain.near(FASTER)}
    verdict: Verdict = "depends" if len(faster) == 2 else "true" if True in faster else "false"
    return verdict, len(sure) < 2 and any(gain.near(FASTER) for gain in gains)
