"""A claim and its verdict: what makes one true, and when it lies within the noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mandeldask.lab import machine
from mandeldask.lab.timing import Neighbours, Run, Spread

Verdict = Literal["true", "false", "depends", "not measurable here"]

PARALLEL = 1.25  # all threads' CPU seconds over the calling thread's, above which others worked too
FASTER = 1.2  # times as fast, above which it counts


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
    needs: int = 1  # free cores for a fair wall time; 0: judged by CPU seconds, which tell in any crowd


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


def all_faster(spreads: list[Spread]) -> tuple[Verdict, bool]:
    """Whether all, some or none gain; within the noise where those near the threshold could change that."""
    gains = [s.median > FASTER for s in spreads]
    verdict: Verdict = "true" if all(gains) else "depends" if any(gains) else "false"
    sure = {gain for gain, s in zip(gains, spreads, strict=True) if not s.near(FASTER)}
    return verdict, len(sure) < 2 and any(s.near(FASTER) for s in spreads)


def cores_claim(key: str, says: str, runs: list[Run], why_not: str, why: str) -> Claim:
    """True where other threads than the caller's worked."""
    threads, cores = threads_at_work(runs), Spread.of([r.cores for r in runs])
    parallel = threads.median > PARALLEL
    return Claim(
        key,
        says,
        "true" if parallel else "false",
        at_work(threads, cores),
        why if parallel else why_not,
        threads.near(PARALLEL),
        {"cores": asdict(cores), "threads": asdict(threads)},
        needs=0,
    )


def threads_at_work(runs: list[Run]) -> Spread:
    return Spread.of([r.threads for r in runs])


def at_work(threads: Spread, cores: Spread) -> str:
    return f"{threads.median:.2f} threads at work, {cores.text()} cores in use"


def too_few_cores(key: str, says: str) -> Claim | None:
    if machine.usable_cores() > 1:
        return None
    return Claim(key, says, "not measurable here", "1 usable core", "one core cannot show whether more would be used")


def unless_crowded(neighbours: Neighbours, claim: Claim) -> Claim:
    """What was judged by wall time is within the noise if other programs took the cores meanwhile."""
    if claim.verdict == "not measurable here" or not neighbours.crowd(claim.needs):
        return claim
    crowded = f"; other programs took {neighbours.taken:.1f} cores meanwhile, so run it again on a quieter machine"
    return replace(claim, noise=True, why=claim.why + crowded)
