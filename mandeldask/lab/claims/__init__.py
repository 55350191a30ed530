"""The lesson's claims as experiments: each with a verdict, the measured figure and one sentence why."""

from __future__ import annotations

from collections.abc import Callable

from mandeldask.lab.claims import loop, speed, threads
from mandeldask.lab.claims.claim import QUICK, Claim, Setting, unless_crowded
from mandeldask.lab.timing import Neighbours, Tell

__all__ = ["EXPERIMENTS", "QUICK", "Claim", "Setting", "measure"]

EXPERIMENTS: dict[str, Callable[[Setting], list[Claim]]] = {
    "NumPy against math": speed.math_library,
    "SIMD dispatch": speed.simd_dispatch,
    "threading layer": threads.blas_library,
    "dot, matmul, inv": threads.linear_algebra,
    "sum, mean, std": threads.reductions,
    "element-wise operations": threads.element_wise,
    "the naive loop": loop.naive_loop,
    "masking": loop.masking,
    "threads and processes": loop.processes,
}


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
            claims += [unless_crowded(neighbours, claim) for claim in found]
        except Exception as error:
            why = f"the experiment failed: {type(error).__name__}: {error}"
            claims.append(Claim(title, title, "not measurable here", "", why))
    return claims
