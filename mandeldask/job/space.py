"""Whether a field will fit where it is to lie: bytes at most against bytes free, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from dask.utils import format_bytes

from mandeldask.errors import StoreError
from mandeldask.job.events import Plan
from mandeldask.kernels import FIELDS
from mandeldask.store import Description, Place

# A field of one colour takes a 200th of its plain bytes or so: nothing that a kernel gives takes less than this.
BEST_RATIO = 1 / 256
LEVELS = 4 / 3  # 1 + 1/4 + 1/16 + ...
REMEDY = "choose another --out, make room, or go on all the same with --ignore-space"


def refuse_absurd(place: Place, d: Description) -> None:
    """Raise StoreError where not even a field of one colour would fit, before a store is made for it.

    The coordinates of 10^12 columns alone are 8 TB.
    """
    free = place.free()
    samples = d.shape[0] * d.shape[1]
    least = int(_plain_bytes(d) * samples * BEST_RATIO + 4 * sum(d.shape))
    if free is not None and least > free:
        raise StoreError(
            f"{samples:.3g} samples need at least {format_bytes(least)} at {place.url}, however well they are "
            f"compressed, and {format_bytes(free)} are free: {REMEDY}"
        )


def look(plan: Plan, say: Callable[[str], None]) -> None:
    """Say so where the pending tiles may not fit."""
    d, free = plan.store.description, plan.store.place.free()
    most = int(plan.pending * d.tile[0] * d.tile[1] * _plain_bytes(d) * LEVELS)
    if free is not None and most > free:
        say(
            f"at most {format_bytes(most)} are needed at {plan.store.path}, before compression, and "
            f"{format_bytes(free)} are free: it may not fit. A run that finds the disk full ends; resume goes on once "
            "there is room"
        )


def _plain_bytes(d: Description) -> int:
    """Bytes of a sample before compression, in all fields."""
    return sum(np.dtype(FIELDS[name]).itemsize for name in d.fields)
