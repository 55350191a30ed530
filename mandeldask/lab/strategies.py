"""The lesson's field by every strategy, side by side: time, speed-up, efficiency, memory, and whether it is right.

Then with more workers and in blocks of every size, and which worker computed which block when.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import psutil
from dask.system import cpu_count
from distributed import Client, get_worker

from mandeldask.cluster import workers_of
from mandeldask.errors import ConfigError, MandeldaskError
from mandeldask.kernels import choose
from mandeldask.lab import Call, Row, Run, Spread, Tell, in_turns, lesson, ratio
from mandeldask.lab.workload import Compute, Depth, Workload, local_workers
from mandeldask.text import plural
from mandeldask.view import Range

SAMPLE_SECONDS = 0.005  # between two samples of the memory in use
LESSON = "lesson"  # in place of a kernel: the lesson's own loop
ALONE, PRINTED = "alone", "as printed"
LESSON_WORKERS = 4  # that the lesson runs with
STRATEGIES = {  # the kernel, and what runs it
    "naive": (LESSON, ALONE),
    "pool as printed": (LESSON, PRINTED),
    "pool corrected": (LESSON, "corrected"),
    "numpy": ("numpy", ALONE),
    "numpy threads": ("numpy", "threads"),
    "numpy dask threads": ("numpy", "dask threads"),
    "numpy dask processes": ("numpy", "dask processes"),
    "numpy distributed": ("numpy", "distributed"),
    "numpy-compact": ("numpy-compact", ALONE),
    "numba": ("numba", ALONE),
    "numba threads": ("numba", "threads"),
    "numba dask threads": ("numba", "dask threads"),
    "numba distributed": ("numba", "distributed"),
}


def measure(depth: Depth, tell: Tell = lambda _: None) -> Row:
    """Every strategy, timed in alternation. One that fails or is not available says so in its row; the rest goes on.

    `problem` says why a strategy did nothing, and the figures are then None: the `speedup` is against the lesson's
    serial function; `efficiency` is the time of the same kernel alone / workers / its time, and `overhead` the seconds
    beyond that share; `startup` is the seconds to open it, once; `memory_bytes` the peak of a call, allocated here and
    held by processes of its own; `pixels_differing` is None too where the shape is wrong already; `faults` are those of
    the lesson's multiprocessing version as printed.
    """
    right = depth.work("numpy").alone()
    rows: dict[str, Row] = {}
    calls: dict[str, Compute] = {}
    figures = ("seconds", "speedup", "efficiency", "overhead", "startup", "memory_bytes", "pixels_differing")
    with ExitStack() as stack:
        for name, (kernel, runner) in STRATEGIES.items():
            tell(f"strategies: opening {name}")
            row: Row = {"name": name, "kernel": kernel, "workers": 1 if runner == ALONE else depth.workers}
            rows[name] = row | {"problem": "", **dict.fromkeys(figures), "shape": [], "faults": {}}
            try:
                facts, calls[name] = _opened(kernel, runner, depth, stack, right)
                rows[name] |= facts
            except Exception as error:
                reason = str(error) if isinstance(error, MandeldaskError) else f"{type(error).__name__}: {error}"
                rows[name]["problem"] = reason
        runs = in_turns(calls, depth.strategy_turns, tell=lambda text: tell(f"strategies: {text}"))
    for name in runs:
        rows[name] |= _figures(rows[name], runs)
    problem = {"side": depth.side, "max_iter": depth.max_iter, "workers": depth.workers}
    return {"problem": problem, "strategies": list(rows.values())}


def _opened(kernel: str, runner: str, depth: Depth, stack: ExitStack, right: lesson.Escapes) -> tuple[Row, Compute]:
    """Open a strategy and call it twice: its start-up, its memory, and what is wrong with its pixels."""
    before = _children()
    begun = time.perf_counter()
    call = _open(kernel, runner, depth, stack)
    startup = time.perf_counter() - begun
    call()  # what comes but once, imports and compilation, is no part of the memory
    result, memory = _peak_memory(call, before)
    facts: Row = {"startup": startup, "memory_bytes": memory, "shape": list(result.shape)}
    if runner == PRINTED:
        facts["faults"] = lesson.faults(result, right.T, -1.5, 1.5, depth.workers)
        result = result.T  # as the lesson indexes it
    differing = int((result != right).sum()) if result.shape == right.shape else None
    return facts | {"pixels_differing": differing}, call


def _open(kernel: str, runner: str, depth: Depth, stack: ExitStack) -> Compute:
    """Start what a strategy needs (pools, clusters), once, and give what is timed."""
    if kernel == LESSON:
        return _of_the_lesson(runner, depth)
    work, n = depth.work(kernel), depth.workers
    through_dask = partial(work.through_dask, work.block_side(n))
    match runner:
        case "threads":
            return work.in_threads(n, stack)
        case "dask threads":
            return partial(through_dask, scheduler="threads", num_workers=n)
        case "dask processes":
            pool = stack.enter_context(lesson.spawned(n))
            pool.map(abs, range(n), chunksize=1)  # the first of them is up
            return partial(through_dask, scheduler="processes", pool=pool)
        case "distributed":
            return partial(through_dask, scheduler=stack.enter_context(local_workers(n)))
    return work.alone


def _of_the_lesson(runner: str, depth: Depth) -> Compute:
    """A call of one of the lesson's functions; its arrays are (x, y), and those that are right are turned."""
    arguments = (-2, 1, -1.5, 1.5, depth.side, depth.side, depth.max_iter)
    if runner == ALONE:
        return lambda: lesson.mandelbrot_escape_time(*arguments).T
    if runner == PRINTED:
        return lambda: lesson.mandelbrot_parallel(*arguments, depth.workers)
    return lambda: lesson.mandelbrot_parallel_corrected(*arguments, depth.workers).T


def _figures(row: Row, runs: dict[str, list[Run]]) -> Row:
    """What follows from the times of a strategy, of the lesson's function, and of the same kernel alone."""
    mine, naive = runs[row["name"]], runs.get("naive")
    alone = runs.get("naive" if row["kernel"] == LESSON else row["kernel"])
    seconds = Spread.of([r.wall for r in mine])
    figures: Row = {"seconds": asdict(seconds), "speedup": asdict(ratio(naive, mine)) if naive else None}
    if row["workers"] > 1 and alone:
        share = Spread.of([r.wall for r in alone]).median / row["workers"]
        figures["efficiency"] = ratio(alone, mine).median / row["workers"]
        figures["overhead"] = seconds.median - share
    return figures


def _peak_memory(call: Compute, known: set[psutil.Process]) -> tuple[lesson.Escapes, int]:
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


# How the time follows the workers, the size and the block; and who computed what, when


def measure_scaling(depth: Depth, tell: Tell) -> Row:
    """The curves over workers and block sizes, and the balance. What fails is empty; `problems` says why."""
    kernels, problems = [], {}
    for kernel in ("numpy", "numba"):
        try:
            choose(kernel)
            kernels.append(kernel)
        except ConfigError as error:
            problems[f"kernel {kernel}"] = str(error)
    found: Row = {"problems": problems, "strong": [], "weak": [], "block_sizes": [], "balance": []}
    counts = _worker_counts(cpu_count())
    most = max(*counts, depth.workers)
    tell(f"starting {plural(most, 'worker')}")
    try:
        with local_workers(most) as client:
            bench = _Scaling(client, depth, tell)
            found["strong"] = [curve for k in kernels for curve in bench.over_workers(k, counts)]
            found["weak"] = [curve for k in kernels for curve in bench.over_workers(k, counts, weak=True)]
            found["block_sizes"] = [bench.over_blocks(kernel) for kernel in kernels]
            found["balance"] = bench.balance()
    except Exception as error:
        problems["workers"] = f"{type(error).__name__}: {error}"
    return found


def _worker_counts(cores: int) -> list[int]:
    """1, 2, 4, ... up to the cores, and at least to the lesson's four, so that a small machine shows too many."""
    most = max(cores, LESSON_WORKERS)
    return sorted({n for n in (*(2**k for k in range(most.bit_length())), cores) if n <= most})


@dataclass(frozen=True)
class _Scaling:
    """A cluster to measure on; where fewer workers are asked for, the others stand idle.

    A curve's points are at x workers, or at blocks of x samples a side. `speedup` is against its first point, or for
    block sizes against the kernel alone; an `efficiency` of 1 is ideal.
    """

    client: Client
    depth: Depth
    tell: Tell = lambda _: None

    def over_workers(self, kernel: str, counts: Sequence[int], weak: bool = False) -> list[Row]:
        """The same field with more and more workers, the ideal being 1/n of the time; or, `weak`, as many rows each."""
        works = {n: self.depth.scaled(kernel, n / 4 if weak else 1.0) for n in counts}
        calls: dict[str, Call] = {}
        with ExitStack() as stack:
            for n, work in works.items():
                calls[f"threads {n}"] = work.in_threads(n, stack)
                calls[f"Dask workers {n}"] = self._through_dask(work, work.block_side(n), n)
            runs = self._timed(f"{'weak' if weak else 'strong'} scaling, {kernel}", calls)
        curves = []
        for means in ("threads", "Dask workers"):
            first = runs[f"{means} {counts[0]}"]
            points = [_point(n, first, runs[f"{means} {n}"], 1 if weak else n) for n in counts]
            curves.append({"name": f"{kernel}, {means}", "workload": str(works[counts[0]]), "points": points})
        return curves

    def over_blocks(self, kernel: str) -> Row:
        """The same field in ever larger Dask blocks: small ones cost the scheduler, large ones leave workers idle."""
        work, workers = self.depth.scaled(kernel), self.depth.workers
        sides = sorted({max(1, -(-work.view.shape[0] // parts)) for parts in self.depth.parts})
        through_dask = {str(side): self._through_dask(work, side, workers) for side in sides}
        runs = self._timed(f"block sizes, {kernel}", {"alone": work.alone} | through_dask)
        points = [_point(side, runs["alone"], runs[str(side)], workers) for side in sides]
        return {"name": f"{kernel}, {workers} Dask workers", "workload": str(work), "points": points}

    def balance(self) -> list[Row]:
        """The lesson's field cut in three ways: which worker computed which block, from when to when.

        Seconds are those after the first block began. `evenness` is the mean busy time over the busiest worker's.
        """
        n = self.depth.workers
        ways = {"one strip of rows a worker": (n, 1), "one strip of columns a worker": (1, n), "8 x 8 blocks": (8, 8)}
        return [self._balance(name, cuts) for name, cuts in ways.items()]

    def _balance(self, name: str, cuts: tuple[int, int]) -> Row:
        self.tell(f"load balance, {name}")
        workers = self.depth.workers
        work, addresses = self.depth.scaled("numpy"), self._first(workers)
        rows, columns = map(lesson.cut, work.view.shape, cuts)
        parts = [(r, c) for r in rows for c in columns]
        traced = self.client.gather(self.client.map(partial(_traced, work), parts, workers=addresses, pure=False))
        begin = min(start for _, start, _ in traced)
        busy = [0.0] * workers
        pieces = []
        for (r, c), (address, start, end) in zip(parts, traced, strict=True):
            worker = addresses.index(address)
            busy[worker] += end - start
            pieces.append({"rows": r, "columns": c, "worker": worker, "start": start - begin, "end": end - begin})
        evenness, seconds = sum(busy) / workers / max(busy), max(p["end"] for p in pieces)
        return {"name": name, "workers": workers, "evenness": evenness, "seconds": seconds, "pieces": pieces}

    def _first(self, n: int) -> list[str]:
        return list(workers_of(self.client))[:n]

    def _through_dask(self, work: Workload, block: int, workers: int) -> Call:
        return partial(work.through_dask, block, scheduler=self.client, workers=self._first(workers))

    def _timed(self, title: str, calls: dict[str, Call]) -> dict[str, list[Run]]:
        for call in calls.values():  # imports and compilation come but once
            call()
        return in_turns(calls, self.depth.scaling_turns, tell=lambda text: self.tell(f"{title}, {text}"))


def _point(x: int, first: Sequence[Run], runs: Sequence[Run], ideal: int) -> Row:
    speedup = ratio(first, runs)
    seconds = Spread.of([r.wall for r in runs])
    return {"x": x, "seconds": asdict(seconds), "speedup": asdict(speedup), "efficiency": speedup.median / ideal}


def _traced(work: Workload, part: tuple[Range, Range]) -> tuple[str, float, float]:
    """Compute a part: the worker's address, and from when to when on its own clock."""
    start = time.time()
    work.part(*part)
    return get_worker().address, start, time.time()
