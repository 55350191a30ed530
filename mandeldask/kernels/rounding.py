"""Refuse a thread whose processor rounds otherwise than IEEE 754 has it by default: its counts would differ.

A library built with -ffast-math switches gradual underflow off in the thread that loads it, and in all that this one
starts. So each block is checked, where it is computed; it takes less than a microsecond.
"""

from __future__ import annotations

import socket

from mandeldask.errors import ClusterError

SMALLEST, NORMAL, LITTLE = 5e-324, 2.0**-1022, 2.0**-60


def check_rounding() -> None:
    """ClusterError where subnormal numbers become zero, or results are not rounded to nearest."""
    if not (SMALLEST * 2.0**60 and NORMAL * 0.5):
        problem = "numbers below 2.2e-308 are taken as zero (flush-to-zero)"
    elif not 1.0 - LITTLE == 1.0 == 1.0 + LITTLE:
        problem = "results are not rounded to nearest"
    else:
        return
    raise ClusterError(
        f"on {socket.gethostname()} {problem}, which changes counts: a library loaded there, often one built with "
        "-ffast-math, has set the processor so. Compute in an environment without it"
    )
