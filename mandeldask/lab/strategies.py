"""The lesson's field by every strategy, side by side: time, speed-up, efficiency, memory, and whether it is right."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil

from mandeldask.errors import MandeldaskError
from mandeldask.lab import lesson
from mandeldask.lab.timing import Run, Spread, Tell, in_turns, ratio
from mandeldask.lab.workload import BLOCKS_A_WORKER, Escapes, Workload, lesson_view, local_workers

SAMPLE_SECONDS = 0.005  # between two samples of the memory in use
LESSON = "lesson"  # in place of a kernel: the lesson's own loop
PRINTED = "pool as printed"


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


@dataclass(frozen=True)
class Strategy:
    """A way to compute the field. `open` starts what it needs (pools, clusters) once, and gives what is timed."""

    title: str
    kernel: str
    open: Callable[[Problem, str, ExitStack], Compute]
    parallel: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a strategy did. `problem` says why it did nothing, and the figures are then None."""

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
    memory_bytes: int | None = None  # at the peak of a call: allocated here, and held by processes of its own
    pixels_differing: int | None = None  # None where the shape is wrong already
    shape: tuple[int, ...] = ()
    faults: dict[str, Any] = field(default_factory=dict)  # of the lesson's multiprocessing version as printed


def _naive(p: Problem, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_escape_time(*p.arguments).T


def _printed(p: Problem, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_parallel(*p.arguments, p.workers)


def _corrected(p: Problem, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_parallel_corrected(*p.arguments, p.workers).T


def _alone(p: Problem, kernel: str, _: ExitStack) -> Compute:
    return p.work(kernel).alone


def _threads(p: Problem, kernel: str, stack: ExitStack) -> Compute:
    pool = stack.enter_context(ThreadPoolExecutor(p.workers))
    return partial(p.work(kernel).in_pool, pool, BLOCKS_A_WORKER * p.workers)


def _dask_threads(p: Problem, kernel: str, _: ExitStack) -> Compute:
    return partial(p.work(kernel).through_dask, p.block, scheduler="threads", num_workers=p.workers)


def _dask_processes(p: Problem, kernel: str, stack: ExitStack) -> Compute:
    pool = stack.enter_context(lesson.spawned(p.workers))
    pool.map(abs, range(p.workers), chunksize=1)  # the first of them is up
    return partial(p.work(kernel).through_dask, p.block, scheduler="processes", pool=pool)


def _distributed(p: Problem, kernel: str, stack: ExitStack) -> Compute:
    work = p.work(kernel)
    return partial(work.through_dask, p.block, scheduler=stack.enter_context(local_workers(p.workers)))


STRATEGIES: dict[str, Strategy] = {
    "naive": Strategy("the lesson's function", LESSON, _naive, parallel=False),
    PRINTED: Strategy("the lesson's multiprocessing, as printed", LESSON, _printed),
    "pool corrected": Strategy("the lesson's multiprocessing, corrected", LESSON, _corrected),
    "numpy": Strategy("NumPy kernel, alone", "numpy", _alone, parallel=False),
    "numpy threads": Strategy("NumPy kernel, threads", "numpy", _threads),
    "numpy dask threads": Strategy("NumPy kernel, Dask threads", "numpy", _dask_threads),
    "numpy dask processes": Strategy("NumPy kernel, Dask processes", "numpy", _dask_processes),
    "numpy distributed": Strategy("NumPy kernel, Dask distributed", "numpy", _distributed),
    "numpy-compact": Strategy("numpy-compact, alone", "numpy-compact", _alone, parallel=False),
    "numba": Strategy("Numba kernel, alone", "numba", _alone, parallel=False),
    "numba threads": Strategy("Numba kernel, threads", "numba", _threads),
    "numba dask threads": Strategy("Numba kernel, Dask threads", "numba", _dask_threads),
    "numba distributed": Strategy("Numba kernel, Dask distributed", "numba", _distributed),
}
SERIAL = {s.kernel: name for name, s in STRATEGIES.items() if not s.parallel}  # each kernel's own serial time


def measure(problem: Problem, turns: int = 5, tell: Tell = lambda _: None) -> list[Outcome]:
    """Every strategy, timed in alternation. One that fails or is not available says so in its row; the rest goes on."""
    right = problem.work("numpy").alone()
    serial = lesson.mandelbrot_escape_time(*problem.arguments)
    outcomes: dict[str, Outcome] = {}
    calls: dict[str, _Guarded] = {}
    with ExitStack() as stack:
        for name, s in STRATEGIES.items():
            tell(f"opening {s.title}")
            row = Outcome(name, s.title, s.kernel, problem.workers if s.parallel else 1)
            try:
                outcomes[name], call = _first_calls(row, s, problem, stack, right, serial)
                calls[name] = _Guarded(call)
            except Exception as error:
                outcomes[name] = replace(row, problem=_reason(error))
        runs = in_turns(calls, turns, warm=True, tell=tell)
    failed = {name: call.failure for name, call in calls.items() if call.failure}
    runs = {name: found for name, found in runs.items() if name not in failed}
    rows = [replace(row, problem=failed.get(name, row.problem)) for name, row in outcomes.items()]
    return [_with_times(row, runs) if row.name in runs else row for row in rows]


def _first_calls(
    row: Outcome, strategy: Strategy, problem: Problem, stack: ExitStack, right: Escapes, serial: Escapes
) -> tuple[Outcome, Compute]:
    """Open a strategy and call it twice: its start-up, its memory, and what is wrong with its pixels."""
    before = _children()
    begun = time.perf_counter()
    call = strategy.open(problem, strategy.kernel, stack)
    startup = time.perf_counter() - begun
    call()  # what comes but once, imports and compilation, is no part of the memory
    with PeakMemory(before) as memory:
        result = call()
    row = replace(row, startup=startup, memory_bytes=memory.peak, shape=result.shape)
    if row.name == PRINTED:
        row = replace(row, faults=lesson.faults(result, serial, -1.5, 1.5, problem.workers))
        result = result.T  # as the lesson indexes it
    differing = int((result != right).sum()) if result.shape == right.shape else None
    return replace(row, pixels_differing=differing), call


@dataclass
class _Guarded:
    """A call that notes its failure, and is not made again after it, so that the others go on."""

    call: Compute
    failure: str = ""

    def __call__(self) -> None:
        if not self.failure:
            try:
                self.call()
            except Exception as error:
                self.failure = _reason(error)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MandeldaskError) else f"{type(error).__name__}: {error}"


def _with_times(row: Outcome, runs: dict[str, list[Run]]) -> Outcome:
    mine = runs[row.name]
    seconds = Spread.of([r.wall for r in mine])
    naive, alone = runs.get("naive"), runs.get(SERIAL[row.kernel])
    row = replace(row, seconds=seconds, speedup=ratio(naive, mine) if naive else None)
    if row.workers == 1 or not alone:
        return row
    share = Spread.of([r.wall for r in alone]).median / row.workers
    return replace(row, efficiency=ratio(alone, mine).median / row.workers, overhead=seconds.median - share)


class PeakMemory:
    """The peak of what this process allocates in the context, plus what processes not in `known` hold: `peak`, bytes.

    tracemalloc, to which NumPy reports, tells what this process allocates. Of the other processes it is the memory that
    they share with no one, sampled every 5 ms.
    """

    def __init__(self, known: set[int]) -> None:
        self.known, self.others = known, 0
        self.stop = threading.Event()
        self.watch = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> PeakMemory:
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
