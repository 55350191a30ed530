"""The escape-time loop on an NVIDIA GPU, compiled by numba-cuda: the same bits as on any CPU.

- `steps`: what runs on the device. The ways to spare work are those of the kernel numba: checked first steps, a dense
  list of the samples left, unchecked blocks of steps with a roll-back, orbits that repeat, samples that provably never
  escape.
- Here is the host's side. A process has one block on its device at a time, and of a large block a run of samples, while
  the escape times of the run before travel to the host.

CuPy's raw kernels would need a second language, and have no simulator to test them in.
"""

# mypy: disable-error-code="no-untyped-call,attr-defined"
# (numba-cuda has no annotations)

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from tempfile import gettempdir
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda
from numpy.typing import NDArray

from mandeldask.errors import MandeldaskError
from mandeldask.kernels.cuda import steps
from mandeldask.kernels.fields import Orbit
from mandeldask.text import pip_install
from mandeldask.view.outer import Axes

RUN = 1 << 22  # samples on the device at a time, at most
BYTES = 48  # that each takes there
SHARE = 0.5  # of the device's free memory, at most
WARP, WARPS = (2, 2) if config.ENABLE_CUDASIM else (32, 32)  # the simulator's threads are Python's

REMEDIES = {  # what an error of CUDA says: what to do
    "driver library cannot be found": "it needs an NVIDIA GPU and its driver",
    "NO_DEVICE": "it needs an NVIDIA GPU that this process may see",
    "libNVVM": f"it needs the CUDA toolkit: {pip_install('cuda')}",
    "compute capability": "it needs a GPU that its CUDA toolkit still compiles for",
    "UNSUPPORTED_PTX_VERSION": "its driver is older than the CUDA toolkit: update it, or install numba-cuda[cu12]",
    "OUT_OF_MEMORY": "others have taken its memory: have fewer workers a GPU",
    "": "restart the worker if that goes on",
}

_turn = threading.Lock()
_mine: list[int] = []  # the device that this process has claimed, by its number

vars(np).setdefault("row_stack", np.vstack)  # numba-cuda 0.30 looks it up when it compiles; NumPy 2.5 has dropped it


def problem() -> str:
    """What keeps this process from using a GPU, in one line; empty if nothing does. It tries one sample."""
    try:
        count(np.array([0.5 + 0j]), 100, 100, np.empty(1, np.int32))
    except MandeldaskError as error:
        return str(error)
    return ""


def claim() -> str:
    """Claim a GPU that works and that no process has claimed, until this process ends; as `problem`."""
    try:
        with _one_line():
            gpus = [(gpu.id, getattr(gpu, "device", gpu).uuid) for gpu in cuda.gpus]  # a simulated one has its `device`
    except MandeldaskError as error:
        return str(error)
    found = "no GPU that is free: other workers have claimed all"
    for number, uuid in gpus:
        lock = _lock(uuid)
        if lock is not None:
            _use(number)
            found = problem()
            if not found:
                break
            _use()
            os.close(lock)
    return found


def _use(*device: int) -> None:
    """Have this device, or none, and let go of what is kept of another."""
    with _turn:
        _mine[:] = device
        kept.cache_clear()


def _lock(uuid: str) -> int | None:
    """The lock on a device, None if another has it. It is given back when the process ends, however that comes."""
    path = Path(gettempdir(), f"mandeldask-{uuid}")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if path.exists() else os.O_CREAT)
    try:
        file = os.open(path, flags, 0o644)
    except OSError:
        return None
    with suppress(PermissionError):  # another user's
        os.fchmod(file, 0o644)  # whatever the umask: others must be able to lock it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def count(
    c: NDArray[np.complex128], max_iter: int, at_end: int, out: NDArray[np.int32], axes: Axes | None = None
) -> None:
    """Escape times of flat `c` into flat `out`; where the axes of c are known, these go to the device in its place.

    Who neither escapes nor is known to stay gets `at_end`: the same samples as of numba.

    Run by run: while the device computes one, the host fetches the escape times of the one before.

    What is on one stream runs in order, and the host fetches what an event says is done. Before a third run may start,
    the times of the first, whose memory it has, have been fetched.
    """
    with _device():
        x_and_y = [cuda.to_device(axis) for axis in axes or ()]
        all_samples, both, _, (*_, computing), _ = kept()
        run = both[0].size
        fetch: Callable[[], object] = int  # nothing yet
        for start, all_times in zip(range(0, c.size, run), cycle(both), strict=False):
            part, target = c[start : start + run], out[start : start + run]
            samples, times = all_samples[: 2 * part.size], all_times[: part.size]
            _send(part, start, x_and_y, samples)
            launch(max_iter, at_end, samples, times)
            done = cuda.event()
            done.record(computing)
            fetch_before, fetch = fetch, partial(_fetch, done, times, target)
            fetch_before()
        fetch()


def outside(c: NDArray[np.complex128], max_iter: int, counts: NDArray[np.int32]) -> Orbit:
    """The orbits of the samples with counts below max_iter, out to the larger bailout."""
    z, n = np.empty((4, c.size)), np.empty(c.size, np.int64)
    with _device():
        samples, times = cuda.to_device(c.view(np.float64)), cuda.to_device(counts)
        ends, last = cuda.device_array(z.shape), cuda.device_array(n.shape, np.int64)
        steps.outside_steps[kept().grid](samples, max_iter, times, ends, last)
        ends.copy_to_host(z)
        last.copy_to_host(n)
    x, y, dx, dy = z
    return Orbit(x, y, dx, dy, n)


def _send(c: NDArray[np.complex128], start: int, axes: list[Any], samples: Any) -> None:
    """The samples of a run, or where their axes are known have the device make them."""
    grid = kept().grid
    if axes:
        steps.outer_sum[grid](*axes, start, samples)
    else:
        samples.copy_to_device(c.view(np.float64), stream=grid[-1])


def _fetch(done: Any, times: Any, out: NDArray[np.int32]) -> None:
    stream = kept().fetching
    done.synchronize()
    times.copy_to_host(out, stream=stream)
    stream.synchronize()


def launch(max_iter: int, at_end: int, samples: Any, times: Any) -> None:
    """Escape times of the samples, all on the device."""
    grid, (counters, *on_list) = kept().grid, kept().on_list
    unchecked = steps.unchecked_steps if at_end else steps.proving_steps
    counters.copy_to_device(np.zeros(2, np.int32), stream=grid[-1])
    steps.first_steps[grid](samples, max_iter, at_end, times, counters, *on_list)
    unchecked[grid](samples, max_iter, counters, *on_list)
    steps.checked_steps[grid](samples, max_iter, at_end, times, counters, *on_list)


class _Kept(NamedTuple):
    """Of the device, from block to block: fresh memory is slow.

    What is on neither of the streams is on the default one, which waits for both, as they for it.
    """

    samples: Any  # parts of c, for a run
    times: tuple[Any, Any]  # escape times, of a run and of the one before
    on_list: tuple[Any, ...]  # counters; of the samples under way number, x, y and n
    grid: tuple[int, int, Any]  # blocks of one warp that fill the device, each thread for many samples; their stream
    fetching: Any  # the stream of what goes to the host meanwhile


@cache
def kept() -> _Kept:
    free, _ = cuda.current_context().get_memory_info()
    run = max(1, int(min(RUN, SHARE * free / BYTES)))
    times, another, at, n = (cuda.device_array(run, np.int32) for _ in range(4))
    x, y = cuda.device_array(run), cuda.device_array(run)
    on_list = cuda.device_array(2, np.int32), at, x, y, n
    blocks = WARPS * (1 if config.ENABLE_CUDASIM else cuda.get_current_device().MULTIPROCESSOR_COUNT)
    return _Kept(cuda.device_array(2 * run), (times, another), on_list, (blocks, WARP, cuda.stream()), cuda.stream())


@contextmanager
def _device() -> Iterator[None]:
    """Have the device to oneself."""
    with _turn, _one_line(), cuda.gpus[_mine[0] if _mine else 0]:
        yield


@contextmanager
def _one_line() -> Iterator[None]:
    """What CUDA says of a fault becomes one line."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"numba", "cuda"}:
            raise
        said = shorten(str(error), 200, placeholder="...").rstrip(" .:")
        remedy = next(remedy for sign, remedy in REMEDIES.items() if sign in said)
        raise MandeldaskError(f"no GPU that works: {remedy} ({said})") from error
