"""The lesson's field by every strategy, side by side: time, speed-up, efficiency, memory, and whether it is right."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil

from mandeldask.errors import MandeldaskError
from mandeldask.kernels import choose
from mandeldask.lab import lesson
from mandeldask.lab.pools import spawned
from mandeldask.lab.timing import Call, Run, Spread, Tell, in_turns, ratio
from mandeldask.lab.workload import BLOCKS_A_WORKER, Escapes, Workload, lesson_view, local_workers

SAMPLE_SECONDS = 0.005  # between two looks at the memory


@dataclass(frozen=True)
class Problem:
    """The lesson's field at some size, for some workers."""

    side: int = 1000
    max_iter: int = 100
    workers: int = 2

    def work(self, kernel: str) -> Workload:
        return Workload(lesson_view(self.side), self.max_iter, kernel)

    @property
    def arguments(self) -> tuple[float, float, float, float, int, int, int]:
        """What the lesson's functions take."""
        return -2, 1, -1.5, 1.5, self.side, self.side, self.max_iter

    @property
    def block(self) -> int:
        return self.work("numpy").block_side(self.workers)


Compute = Callable[[], Escapes]
Opened = AbstractContextManager[Compute]


@dataclass(frozen=True)
class Strategy:
    """A way to compute the field: opened once (pools, clusters), then called again and again."""

    title: str
    kernel: str  # "lesson" is the lesson's own loop
    parallel: bool
    open: Callable[[Problem], Opened]


@dataclass(frozen=True)
class Outcome:
    """What a strategy did; `problem` says why it did nothing, and the figures are then None."""

    name: str
    title: str
    kernel: str
    workers: int
    problem: str = ""
    seconds: Spread | None = None
    speedup: Spread | None = None  # against the lesson's serial function
    efficiency: float | None = None  # of its workers: the same kernel alone / workers / its time
    overhead: float | None = None  # seconds beyond the same kernel alone / workers
    startup: float | None = None  # seconds to open it, once
    memory_bytes: int | None = (
        None  # at the peak of a call: what it allocates here, and all that its own processes hold
    )
    pixels_differing: int | None = None  # None where the shape is wrong already
    shape: tuple[int, ...] = ()
    faults: dict[str, Any] = field(default_factory=dict)  # of the lesson's multiprocessing version as printed


@contextmanager
def _naive(p: Problem) -> Iterator[Compute]:
    yield lambda: lesson.mandelbrot_escape_time(*p.arguments).T


@contextmanager
def _printed(p: Problem) -> Iterator[Compute]:
    yield lambda: lesson.mandelbrot_parallel(*p.arguments, p.workers)


@contextmanager
def _corrected(p: Problem) -> Iterator[Compute]:
    yield lambda: lesson.mandelbrot_parallel_corrected(*p.arguments, p.workers).T


def _alone(kernel: str) -> Callable[[Problem], Opened]:
    @contextmanager
    def opened(p: Problem) -> Iterator[Compute]:
        choose(kernel)
        yield p.work(kernel).alone

    return opened


def _threads(kernel: str) -> Callable[[Problem], Opened]:
    @contextmanager
    def opened(p: Problem) -> Iterator[Compute]:
        choose(kernel)
        with ThreadPoolExecutor(p.workers) as pool:
            yield lambda: p.work(kernel).in_pool(pool, BLOCKS_A_WORKER * p.workers)

    return opened


def _dask_threads(kernel: str) -> Callable[[Problem], Opened]:
    @contextmanager
    def opened(p: Problem) -> Iterator[Compute]:
        choose(kernel)
        yield partial(p.work(kernel).through_dask, p.block, scheduler="threads", num_workers=p.workers)

    return opened


@contextmanager
def _dask_processes(p: Problem) -> Iterator[Compute]:
    with spawned(p.workers) as pool:
        pool.map(abs, range(p.workers), chunksize=1)  # the first of them is up
        yield partial(p.work("numpy").through_dask, p.block, scheduler="processes", pool=pool)


def _distributed(kernel: str) -> Callable[[Problem], Opened]:
    @contextmanager
    def opened(p: Problem) -> Iterator[Compute]:
        choose(kernel)
        with local_workers(p.workers) as client:
            yield partial(p.work(kernel).through_dask, p.block, scheduler=client)

    return opened


STRATEGIES: dict[str, Strategy] = {
    "naive": Strategy("the lesson's function", "lesson", False, _naive),
    "pool as printed": Strategy("the lesson's multiprocessing, as printed", "lesson", True, _printed),
    "pool corrected": Strategy("the lesson's multiprocessing, corrected", "lesson", True, _corrected),
    "numpy": Strategy("NumPy kernel, alone", "numpy", False, _alone("numpy")),
    "numpy threads": Strategy("NumPy kernel, threads", "numpy", True, _threads("numpy")),
    "numpy dask threads": Strategy("NumPy kernel, Dask threads", "numpy", True, _dask_threads("numpy")),
    "numpy dask processes": Strategy("NumPy kernel, Dask processes", "numpy", True, _dask_processes),
    "numpy distributed": Strategy("NumPy kernel, Dask distributed", "numpy", True, _distributed("numpy")),
    "numpy-compact": Strategy("numpy-compact, alone", "numpy-compact", False, _alone("numpy-compact")),
    "numba": Strategy("Numba kernel, alone", "numba", False, _alone("numba")),
    "numba threads": Strategy("Numba kernel, threads", "numba", True, _threads("numba")),
    "numba dask threads": Strategy("Numba kernel, Dask threads", "numba", True, _dask_threads("numba")),
    "numba distributed": Strategy("Numba kernel, Dask distributed", "numba", True, _distributed("numba")),
}
SERIAL = {s.kernel: name for name, s in STRATEGIES.items() if not s.parallel}  # each kernel's own serial time


def measure(problem: Problem, turns: int = 5, tell: Tell | None = None) -> list[Outcome]:
    """Every strategy, timed in turns. One that fails or is not available says so in its row; the rest goes on."""
    right = problem.work("numpy").alone()
    serial = lesson.mandelbrot_escape_time(*problem.arguments)
    outcomes: dict[str, Outcome] = {}
    calls: dict[str, Call] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for name, s in STRATEGIES.items():
            if tell:
                tell(f"opening {s.title}")
            row = Outcome(name, s.title, s.kernel, problem.workers if s.parallel else 1)
            try:
                before = _children()
                begun = time.perf_counter()
                call = stack.enter_context(s.open(problem))
                startup = time.perf_counter() - begun
                call()  # what comes but once, imports and compilation, is no part of the memory
                with PeakMemory(before) as memory:
                    result = call()
                row = replace(row, startup=startup, memory_bytes=memory.peak, shape=result.shape)
                if name == "pool as printed":
                    row = replace(row, faults=lesson.faults(result, serial, -1.5, 1.5, problem.workers))
                    result = result.T  # as the lesson indexes it
                row = replace(row, pixels_differing=_differing(result, right))
                calls[name] = _guarded(name, call, failures)
            except Exception as error:
                row = replace(row, problem=_reason(error))
            outcomes[name] = row
        runs = in_turns(calls, turns, warm=True, tell=tell)
    for name, why in failures.items():
        outcomes[name] = replace(outcomes[name], problem=why)
    good = {name: r for name, r in runs.items() if name not in failures}
    return [_figures(row, good) if row.name in good else row for row in outcomes.values()]


def _guarded(name: str, call: Compute, failures: dict[str, str]) -> Callable[[], None]:
    """The call, which notes its failure and lets the others go on."""

    def guarded() -> None:
        if name not in failures:
            try:
                call()
            except Exception as error:
                failures[name] = _reason(error)

    return guarded


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MandeldaskError) else f"{type(error).__name__}: {error}"


def _differing(result: Escapes, right: Escapes) -> int | None:
    """Pixels that differ; None where the shape does."""
    return int((result != right).sum()) if result.shape == right.shape else None


def _figures(row: Outcome, runs: dict[str, list[Run]]) -> Outcome:
    """The row with its times, and what follows from them."""
    mine = runs[row.name]
    seconds = Spread.of([r.wall for r in mine])
    naive, alone = runs.get("naive"), runs.get(SERIAL[row.kernel])
    speedup = ratio(naive, mine) if naive else None
    if row.workers == 1 or not alone:
        return replace(row, seconds=seconds, speedup=speedup)
    share = Spread.of([r.wall for r in alone]).median / row.workers
    efficiency = ratio(alone, mine).median / row.workers
    return replace(row, seconds=seconds, speedup=speedup, efficiency=efficiency, overhead=seconds.median - share)


class PeakMemory:
    """The peak of what this process allocates in the context, plus what processes not in `known` hold: `peak`, bytes.

    What this process allocates is told by tracemalloc, which NumPy reports to; of the others it is the memory that
    they share with no one, looked at every 5 ms.
    """

    def __init__(self, known: set[int]) -> None:
        self.known = known

    def __enter__(self) -> PeakMemory:
        self.others = 0
        self.stop = threading.Event()
        self.watch = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.watch.start()
        tracemalloc.start()
        return self

    def __exit__(self, *error: object) -> None:
        own = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.stop.set()
        self.watch.join()
        self.peak = own + self.others

    def _watch(self) -> None:
        while not self.stop.wait(SAMPLE_SECONDS):
            new = [child for child in psutil.Process().children(recursive=True) if child.pid not in self.known]
            self.others = max(self.others, sum(map(_private, new)))


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _private(process: psutil.Process) -> int:
    """Bytes in memory that a process shares with no other; where the system does not tell, all in memory."""
    try:
        memory = process.memory_info()
    except psutil.Error:  # ended in the meantime
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
