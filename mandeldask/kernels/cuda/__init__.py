"""The escape-time loop on an NVIDIA GPU, through numba-cuda: the same bits as on any CPU.

- `steps`: what runs on the device. Every product is rounded by itself, so that nothing is fused with a sum; the ways to
  spare work are those of the kernel numba: checked first steps, unchecked blocks of steps with a roll-back, orbits that
  repeat, samples that provably never escape.
- `device`: the host's side: memory on the device, one block at a time a process.

Importing `steps` needs numba-cuda; `problem` says why the kernel cannot be used here.
"""

from __future__ import annotations

import numpy as np


def problem() -> str:
    """Why the kernel cannot be used here; empty if it can."""
    try:
        import numba.cuda
    except ImportError as error:
        return f"numba-cuda cannot be imported here ({error})"
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack  # numba-cuda 0.30 looks it up, and NumPy 2.5 has dropped it
    try:
        numba.cuda.get_current_device()
    except Exception as error:
        return f"no GPU can be used here ({' '.join(str(error).split())[:200]})"
    return ""
