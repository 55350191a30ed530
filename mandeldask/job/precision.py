"""Random samples of a store against arithmetic of enough digits: which are asked for, and what they say together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mandeldask.errors import StoreError
from mandeldask.precise import Rounded, round_samples
from mandeldask.store import Store

TASK_ITERATIONS = 2**20  # at most, some seconds of work; a task is one sample at least
QUANTILES = (0.5, 0.9, 0.99, 1.0)
Quantiles = dict[float, float]


@dataclass(frozen=True)
class Precision:
    """What rounding has done to random samples. Quantiles are the values that so large a share does not exceed."""

    samples: int
    differ: int  # whose escape time is another in enough digits
    by: Quantiles  # of those that differ: the difference
    ulps: Quantiles  # of those that differ: how far c would lie elsewhere, in units in its last place
    explained: int  # of those that differ: the count there, in enough digits, is the stored one
    bits: int  # of the arithmetic, at most
    smooth: Quantiles | None  # error, in steps; None where the store has none
    distance: Quantiles | None  # relative error


def tasks(store: Store, samples: int, seed: int) -> Iterator[tuple[partial[list[Rounded]], int]]:
    """Functions of the store, and how many random samples each takes; of tiles that are done.

    StoreError where none is.
    """
    d, rng = store.description, np.random.default_rng((seed, samples))
    tiles = np.argwhere(store.done())
    if not len(tiles):
        raise StoreError(f"{store.path} has no tile yet whose samples could be iterated again")
    places = []
    for tile in tiles[rng.integers(len(tiles), size=samples)].tolist():
        rows, columns = d.levels[0].window((tile[0], tile[1]))
        places.append((int(rng.integers(*rows)), int(rng.integers(*columns))))
    size = max(1, TASK_ITERATIONS // d.max_iter)
    for first in range(0, samples, size):
        part = places[first : first + size]
        yield partial(round_samples, part), len(part)


def precision(found: Iterable[Rounded], fields: Sequence[str]) -> Precision:
    """What the samples say together. `fields` are those of the store."""
    samples = list(found)
    differ = [s for s in samples if s.stored != s.precise]
    beyond = [name for name in ("smooth", "distance") if name in fields]
    errors = {name: [s.errors[k] for s in samples if s.errors] for k, name in enumerate(beyond)}
    return Precision(
        samples=len(samples),
        differ=len(differ),
        by=_quantiles([abs(s.stored - s.precise) for s in differ]),
        ulps=_quantiles([s.ulps for s in differ]),
        explained=sum(s.explained for s in differ),
        bits=max((s.bits for s in samples), default=0),
        smooth=_quantiles(errors["smooth"]) if "smooth" in errors else None,
        distance=_quantiles(errors["distance"]) if "distance" in errors else None,
    )


def _quantiles(values: Sequence[float]) -> Quantiles:
    known = np.array(values, np.float64)
    known = known[np.isfinite(known)]
    return {q: float(np.quantile(known, q)) for q in QUANTILES} if known.size else {}
