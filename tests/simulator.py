"""Numba's CUDA simulator with a barrier: its own blocks poll their threads, 5 ms a step. Workers preload this file."""

import threading

import numpy as np
from numba.cuda.simulator import kernel


class Block(kernel.BlockManager):
    """A block of threads that all come to each barrier, as those of our kernels do."""

    def run(self, grid_point, *arguments):
        barrier = threading.Barrier(int(np.prod(self._block_dim)))

        def target():
            try:
                self._f(*arguments)
            except BaseException:
                barrier.abort()
                raise

        threads = [
            kernel.BlockThread(target, self, grid_point, point, self._debug) for point in np.ndindex(*self._block_dim)
        ]
        for thread in threads:
            thread.syncthreads = barrier.wait
            thread.start()
        for thread in threads:
            thread.join()
        for thread in threads:
            if thread.exception:
                raise thread.exception[0].with_traceback(thread.exception[1])


kernel.BlockManager = Block
