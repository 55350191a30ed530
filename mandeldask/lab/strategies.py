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
from mandeldask.lab.workload import Depth, Escapes, local_workers

SAMPLE_SECONDS = 0.005  # between two samples of the memory in use
LESSON = "lesson"  # in place of a kernel: the lesson's own loop
PRINTED = "pool as printed"

Compute = Callable[[], Escapes]


@dataclass(frozen=True)
class Strategy:
    """A way to compute the field. `open` starts what it needs (pools, clusters) once, and gives what is timed."""

    kernel: str
    open: Callable[[Depth, str, ExitStack], Compute]
    parallel: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a strategy did. `problem` says why it did nothing, and the figures are then None."""

    name: str
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


def _arguments(depth: Depth) -> tuple[float, float, float, float, int, int, int]:
    """What the lesson's functions take."""
    return -2, 1, -1.5, 1.5, depth.side, depth.side, depth.max_iter


def _naive(depth: Depth, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_escape_time(*_arguments(depth)).T


def _printed(depth: Depth, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_parallel(*_arguments(depth), depth.workers)


def _corrected(depth: Depth, _: str, __: ExitStack) -> Compute:
    return lambda: lesson.mandelbrot_parallel_corrected(*_arguments(depth), depth.workers).T


def _alone(depth: Depth, kernel: str, _: ExitStack) -> Compute:
    return depth.work(kernel).alone


def _threads(depth: Depth, kernel: str, stack: ExitStack) -> Compute:
    return partial(depth.work(kernel).in_pool, stack.enter_context(ThreadPoolExecutor(depth.workers)), depth.workers)


def _dask_threads(depth: Depth, kernel: str, _: ExitStack) -> Compute:
    return _through_dask(depth, kernel, scheduler="threads", num_workers=depth.workers)


def _dask_processes(depth: Depth, kernel: str, stack: ExitStack) -> Compute:
    pool = stack.enter_context(lesson.spawned(depth.workers))
    pool.map(abs, range(depth.workers), chunksize=1)  # the first of them is up
    return _through_dask(depth, kernel, scheduler="processes", pool=pool)


def _distributed(depth: Depth, kernel: str, stack: ExitStack) -> Compute:
    return _through_dask(depth, kernel, scheduler=stack.enter_context(local_workers(depth.workers)))


def _through_dask(depth: Depth, kernel: str, **scheduler: object) -> Compute:
    work = depth.work(kernel)
    return partial(work.through_dask, work.block_side(depth.workers), **scheduler)


STRATEGIES: dict[str, Strategy] = {
    "naive": Strategy(LESSON, _naive, parallel=False),
    PRINTED: Strategy(LESSON, _printed),
    "pool corrected": Strategy(LESSON, _corrected),
    "numpy": Strategy("numpy", _alone, parallel=False),
    "numpy threads": Strategy("numpy", _threads),
    "numpy dask threads": Strategy("numpy", _dask_threads),
    "numpy dask processes": Strategy("numpy", _dask_processes),
    "numpy distributed": Strategy("numpy", _distributed),
    "numpy-compact": Strategy("numpy-compact", _alone, parallel=False),
    "numba": Strategy("numba", _alone, parallel=False),
    "numba threads": Strategy("numba", _threads),
    "numba dask threads": Strategy("numba", _dask_threads),
    "numba distributed": Strategy("numba", _distributed),
}
SERIAL = {s.kernel: name for name, s in STRATEGIES.items() if not s.parallel}  # each kernel's own serial time


def measure(depth: Depth, tell: Tell = lambda _: None) -> list[Outcome]:
    """Every strategy, timed in alternation. One that fails or is not available says so in its row; the rest goes on."""
    right = depth.work("numpy").alone()
    rows: dict[str, Outcome] = {}
    calls: dict[str, Compute] = {}
    with ExitStack() as stack:
        for name, strategy in STRATEGIES.items():
            tell(f"opening {name}")
            row = Outcome(name, strategy.kernel, depth.workers if strategy.parallel else 1)
            try:
                rows[name], calls[name] = _opened(row, strategy, depth, stack, right)
            except Exception as error:
                reason = str(error) if isinstance(error, MandeldaskError) else f"{type(error).__name__}: {error}"
                rows[name] = replace(row, problem=reason)
        runs = in_turns(calls, depth.strategy_turns, tell=tell)
    return [_timed(row, runs) if name in runs else row for name, row in rows.items()]


def _opened(
    row: Outcome, strategy: Strategy, depth: Depth, stack: ExitStack, right: Escapes
) -> tuple[Outcome, Compute]:
    """Open a strategy and call it twice: its start-up, its memory, and what is wrong with its pixels."""
    before = _children()
    begun = time.perf_counter()
    call = strategy.open(depth, strategy.kernel, stack)
    startup = time.perf_counter() - begun
    call()  # what comes but once, imports and compilation, is no part of the memory
    result, memory = _peak_memory(call, before)
    row = replace(row, startup=startup, memory_bytes=memory, shape=result.shape)
    if row.name == PRINTED:
        row = replace(row, faults=lesson.faults(result, right.T, -1.5, 1.5, depth.workers))
        result = result.T  # as the lesson indexes it
    differing = int((result != right).sum()) if result.shape == right.shape else None
    return replace(row, pixels_differing=differing), call


def _timed(row: Outcome, runs: dict[str, list[Run]]) -> Outcome:
    mine, naive, alone = runs[row.name], runs.get("naive"), runs.get(SERIAL[row.kernel])
    seconds = Spread.of([r.wall for r in mine])
    row = replace(row, seconds=seconds, speedup=ratio(naive, mine) if naive else None)
    if row.workers == 1 or not alone:
        return row
    share = Spread.of([r.wall for r in alone]).median / row.workers
    return replace(row, efficiency=ratio(alone, mine).median / row.workers, overhead=seconds.median - share)


def _peak_memory(call: Compute, known: set[psutil.Process]) -> tuple[Escapes, int]:
    """A call's result, and the bytes that it allocates here, as NumPy tells, plus those of processes not `known`."""
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(_peak_of_others, known, done)
        tracemalloc.start()
        try:
            result = call()
        finally:
            own = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            done.set()
        return result, own + others.result()


def _peak_of_others(known: set[psutil.Process], done: threading.Event) -> int:
    peak = 0
    while not done.wait(SAMPLE_SECONDS):
        peak = max(peak, sum(map(_private_bytes, _children() - known)))
    return peak


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _private_bytes(process: psutil.Process) -> int:
    """Bytes in memory that a process shares with no other; where the system does not tell, all in memory."""
    try:
        memory = process.memory_info()
    except psutil.Error:  # ended in the meantime
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
