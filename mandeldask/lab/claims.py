"""The lesson's claims: what each says, and what makes it true on this machine, or lie within the noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mandeldask.lab.timing import OtherPrograms, Run, Spread

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


@dataclass(frozen=True)
class Setting:
    """How much is measured: turns, and the sizes of arrays."""

    turns: int = 7
    seconds: float = 0.03  # at least, of one measurement
    matrix: int = 768  # rows of a square matrix: 5 MB
    vector: int = 1_000_000  # elements: 8 MB
    small: int = 2_000  # elements: 16 KB, in the first-level cache, so that SIMD shows
    field: int = 400  # samples a side of the lesson's view
    max_iter: int = 100


QUICK = Setting(turns=3, seconds=0.005, matrix=256, vector=200_000, field=80, max_iter=40)


@dataclass(frozen=True)
class Claim:
    """A sentence of the lesson, and what an experiment says of it on this machine."""

    key: str
    says: str
    verdict: Verdict
    figure: str  # for a reader: medians, with quartiles in brackets
    why: str
    noise: bool = False  # the threshold lies within the noise: another run may say otherwise
    values: dict[str, Any] = field(default_factory=dict)  # the same figures for a program
    needs: int = 1  # free cores for a fair wall time; 0: judged by CPU seconds, which hold on a busy machine too


def claim(key: str, verdict: Verdict, figure: str, why: str, noise: bool = False, **more: Any) -> Claim:
    return Claim(key, SAYS[key], verdict, figure, why, noise, **more)


def not_measurable(key: str, why: str, figure: str = "") -> Claim:
    return claim(key, "not measurable here", figure, why)


def threads_claim(
    key: str, runs: list[Run], alone: str, together: str, true_if_alone: bool = False, figure: str = ""
) -> Claim:
    """Whether other threads than the caller's worked; `alone` and `together` are the two reasons to give."""
    threads, cores = Spread.of([r.threads for r in runs]), Spread.of([r.cores for r in runs])
    parallel = threads.median > PARALLEL
    return claim(
        key,
        "true" if parallel != true_if_alone else "false",
        f"{figure}{threads.median:.2f} threads at work, {cores.text()} cores in use",
        together if parallel else alone,
        threads.near(PARALLEL),
        values=values_of(cores=cores, threads=threads),
        needs=0,
    )


def all_faster(spreads: list[Spread]) -> tuple[Verdict, bool]:
    """Whether all, some or none gain; within the noise where those near the threshold could change that."""
    gains = [s.median > FASTER for s in spreads]
    verdict: Verdict = "true" if all(gains) else "depends" if any(gains) else "false"
    sure = {gain for gain, s in zip(gains, spreads, strict=True) if not s.near(FASTER)}
    return verdict, len(sure) < 2 and any(s.near(FASTER) for s in spreads)


def values_of(**spreads: Spread) -> dict[str, Any]:
    """Figures as JSON takes them."""
    return {name: asdict(spread) for name, spread in spreads.items()}


def unless_crowded(others: OtherPrograms, judged: Claim) -> Claim:
    """What was judged by wall time is within the noise if other programs took the cores meanwhile."""
    if judged.verdict == "not measurable here" or not others.crowd(judged.needs):
        return judged
    crowded = f"; other programs took {others.taken:.1f} cores meanwhile, so run it again on a quieter machine"
    return replace(judged, noise=True, why=judged.why + crowded)
