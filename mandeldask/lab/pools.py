"""Pools of fresh processes. It imports the standard library alone, so that they are quick to start."""

from __future__ import annotations

import signal
from multiprocessing import get_context, resource_tracker
from multiprocessing.pool import Pool


def spawned(n: int) -> Pool:
    """A pool of `n` processes, spawned on every system: it is not safe to fork a process that has threads.

    They never see Ctrl-C, which reaches every process of a terminal's foreground group: a worker that ended by it
    would leave the pool's locks taken, and the pool could not be ended in turn. This process ends them.
    """
    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        resource_tracker.ensure_running()  # it unblocks SIGINT in this thread
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        return get_context("spawn").Pool(n)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
