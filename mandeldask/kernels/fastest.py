"""The kernel auto: in each process the fastest kernel that works there, as all give the same bits.

That is cuda for a process that claims a GPU, and numba for the others; numpy-compact without Numba.
A process whose GPU fails goes on with its CPU: that costs time, and nothing else.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable
from textwrap import shorten
from typing import Any

from mandeldask.errors import MandeldaskError
from mandeldask.kernels import fields, numpy_loops
from mandeldask.kernels.block import Count, Counts, Outside, Samples
from mandeldask.text import pip_install
from mandeldask.view.outer import Axes

AUTO = "auto"  # chosen where it runs
NO_GPU = "needs numba-cuda", "driver library cannot be found", "NO_DEVICE", "other workers have claimed"

_chosen: list[str] = []  # the kernel of this process, once it is known, and why it is not cuda
_lock = threading.Lock()
_last = threading.local()


def here() -> str:
    """What auto is in this process, a key of KERNELS. The first call tries the GPU, which takes seconds."""
    with _lock:
        if not _chosen:
            problem = _cuda_problem("claim")
            _chosen[:] = [on_cpu() if problem else "cuda", problem]
        return _chosen[0]


def load() -> None:
    """Import, and so perhaps compile, what auto is in this process."""
    _functions_here()


def kernel_used() -> str:
    """What auto was for this thread's last block."""
    return getattr(_last, "kernel", "") or here()


def report() -> tuple[str, str]:
    """What auto is in this process, and what is wrong with its GPU: "" where it works, is taken, or is not there."""
    kernel = here()
    problem = _chosen[1]
    return kernel, "" if any(sign in problem for sign in NO_GPU) else problem


def on_cpu() -> str:
    """The fastest kernel for this process's CPU."""
    return "numpy-compact" if _numba_problem() else "numba"


def lacking(name: str) -> str:
    """Why a kernel, a key of KERNELS, cannot run in this process, in one line, such as "needs Numba, ..."; or empty."""
    return {"numba": _numba_problem, "cuda": _cuda_problem}.get(name, str)()


def functions(name: str) -> tuple[Count, Outside]:
    """`count` and `outside` of a kernel, a key of KERNELS. What takes Numba is imported, and so perhaps compiled."""
    if name == AUTO:
        return count, outside
    if name.startswith("numpy"):
        return numpy_loops.masked if name == "numpy" else numpy_loops.compact, fields.outside
    module = importlib.import_module({"cuda": "mandeldask.kernels.cuda", "numba": "mandeldask.kernels.lanes"}[name])
    return module.count, module.outside


def count(c: Samples, max_iter: int, at_end: int, out: Counts, axes: Axes | None = None) -> None:
    """Escape times of flat `c` into flat `out`; `at_end` for who neither escapes nor is known to stay."""
    _either(lambda count, _: count(c, max_iter, at_end, out, *([axes] if here() == "cuda" else [])))


def outside(c: Samples, max_iter: int, counts: Counts) -> fields.Orbit:
    """The orbits of the samples with counts below max_iter, out to the larger bailout."""
    counted = getattr(_last, "kernel", "")
    orbit = _either(lambda _, outside: outside(c, max_iter, counts))
    _last.kernel = counted
    return orbit  # type: ignore[no-any-return]


def _either(compute: Callable[[Count, Outside], Any]) -> Any:
    """With the kernel that was chosen, and where that is a GPU's and fails, from then on with the CPU's."""
    try:
        return compute(*_functions_here())
    except MandeldaskError as error:
        _chosen[:] = [on_cpu(), f"finds {error}"]
        logging.getLogger(__name__).warning("%s; from here on this process computes on its CPU", error)
        return compute(*_functions_here())


def _functions_here() -> tuple[Count, Outside]:
    """Those of what auto is in this process, which is noted as this thread's last."""
    _last.kernel = here()
    return functions(_last.kernel)


def _cuda_problem(look: str = "problem") -> str:
    """Of cuda, what its function `look` finds."""
    try:
        problem = getattr(importlib.import_module("mandeldask.kernels.cuda"), look)()
    except ImportError as error:
        return f"needs numba-cuda, which cannot be imported here ({error}): {pip_install('cuda')}"
    except Exception as error:  # whatever a toolkit or a driver raises that numba-cuda does not know
        return f"fails: {type(error).__name__}: {error}"
    return problem and f"finds {problem}"


def _numba_problem() -> str:
    try:
        importlib.import_module("numba")
    except ImportError as error:  # not there, or too old for this NumPy or this Python
        return f"needs Numba, which cannot be imported here ({shorten(str(error), 200, placeholder='...')})"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "needs Numba, which NUMBA_DISABLE_JIT switches off"
    return ""
