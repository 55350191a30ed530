"""Live tiles where binary64 ends: offsets from a dyadic origin, along whose reference orbit they are followed.

The page chooses the origin. Its orbit is a task of its own on the cluster; Dask hands it to the workers, each of which
makes its table of jumps once.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, Future, get_worker
from numpy.typing import NDArray
from zict import LRU

from mandeldask.errors import ConfigError
from mandeldask.explorer.tiles import LIVE_FIELDS, SIDE, PackedTile, check_address, packed

if TYPE_CHECKING:
    from mandeldask.kernels.deep.reference import Reference

MAX_LEVEL = 14_100  # spacings of 10^-4247; Python reads integers of up to 4300 digits
REACH = 64  # levels between an origin and its tiles
EXACT = 2**52  # of its units, within which binary64 has an offset and half of one
TOPIC = "mandeldask-explorer"  # of Dask's events: how far a reference is
TELL_SECONDS = 0.3
KEPT = 3  # references: of up to 32 MB for a million steps
LIVE_PROOFS = ("none", "double-double")


@dataclass(frozen=True)
class Origin:
    """The point (x + iy) 2^-level; offsets from it are in units of 2^unit, about a tile of its neighbourhood."""

    level: int
    x: int
    y: int

    @property
    def unit(self) -> int:
        return SIDE.bit_length() - 1 - self.level

    @property
    def point(self) -> tuple[Fraction, Fraction]:
        return Fraction(self.x, 1 << self.level), Fraction(self.y, 1 << self.level)

    @property
    def digits(self) -> int:
        return round(self.level * 0.30103)


@dataclass(frozen=True)
class DeepTile:
    """The square [column, column + 1] x [row, row + 1] in units of 2^-level, sampled as a `live_view` is."""

    level: int
    column: int
    row: int
    origin: Origin
    proof: str

    def __str__(self) -> str:
        return f"of level {self.level}"

    def offsets(self) -> NDArray[np.complex128]:
        """Of the samples from the origin, in its units, rows from the lowest up: all exact."""
        c = np.empty((SIDE, SIDE), np.complex128)
        c.real = self._axis(self.column, self.origin.x)
        c.imag = self._axis(self.row, self.origin.y)[:, np.newaxis]
        return c

    def _axis(self, n: int, origin: int) -> NDArray[np.float64]:
        start, step, scale = self._steps(n, origin)
        return np.ldexp((start + step * np.arange(SIDE)).astype(np.float64), scale)

    def _steps(self, n: int, origin: int) -> tuple[int, int, int]:
        """The first sample's offset and the step between two, in units of 2^scale."""
        cell = self.level + SIDE.bit_length() - 1
        fine = max(self.origin.level, cell + 1)
        corner = (n << fine - self.level) - (origin << fine - self.origin.level)
        step = 1 << fine - cell
        return corner + step // 2, step, -fine - self.origin.unit


def deep_tile(level: int, column: int, row: int, origin: str, proof: str) -> DeepTile:
    """The tile of an address; `origin` is "level,x,y", its x and y counted from the tile's corner.

    ConfigError where it is out of range, or too far from its origin for exact offsets.
    """
    check_address(level, column, row, MAX_LEVEL)
    parts = re.fullmatch(r"([0-9]{1,5}),(-?[0-9]{1,30}),(-?[0-9]{1,30})", origin)
    if not parts or proof not in LIVE_PROOFS:
        raise ConfigError(f"a deep tile has an origin LEVEL,X,Y and a proof of {', '.join(LIVE_PROOFS)}")
    at, x, y = map(int, parts.groups())
    if abs(at - level) > REACH:
        raise ConfigError(f"an origin lies within {REACH} levels of its tiles; got {at} for level {level}")
    corner = [n << at - level if at >= level else n >> level - at for n in (column, row)]
    tile = DeepTile(level, column, row, Origin(at, corner[0] + x, corner[1] + y), proof)
    if any(abs(tile._steps(*pair)[0]) > EXACT for pair in ((column, tile.origin.x), (row, tile.origin.y))):
        raise ConfigError("a deep tile lies within 2^52 half samples of its origin")
    return tile


def _compute_deep_tile(tile: DeepTile, max_iter: int, reference: Reference) -> PackedTile:
    """Compute a deep tile; this runs on a worker."""
    from mandeldask.kernels import deep  # with Numba, which the server does not wait for

    block = deep.DeepFunction(max_iter, LIVE_FIELDS, deep.Held(reference), tile.proof)(tile.offsets())
    return packed(block["escape_time"], block["smooth"], max_iter, deep.last_counts().unproven)


def _compute_reference(origin: Origin, max_iter: int, key: str) -> Reference:
    """Compute a reference, and say how far it is; this runs on a worker."""
    from mandeldask.kernels.deep import reference_orbit

    worker, told = get_worker(), [time.monotonic()]

    def tell(done: int, of: int) -> None:
        if time.monotonic() - told[0] > TELL_SECONDS:
            told[0] = time.monotonic()
            worker.log_event(TOPIC, {"key": key, "done": done, "of": of})

    return reference_orbit(origin.point, origin.unit, max_iter, tell)


class References:
    """The references at work and at hand on a cluster, the latest few."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.futures: LRU[tuple[Origin, int], Future] = LRU(KEPT, {})
        self.progress: dict[str, str] = {}  # by key
        client.subscribe_topic(TOPIC, self._heard)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        _, news = event
        self.progress = {news["key"]: f"{news['done'] / news['of']:.0%} of at most {news['of']:,} iterations"}

    def task(self, tile: DeepTile, max_iter: int) -> tuple[Callable[..., PackedTile], DeepTile, int, Future]:
        """What to submit for a tile, with a reference that is long enough for it."""
        enough = (kept for kept in self.futures if kept[0] == tile.origin and kept[1] >= max_iter)
        asked = _, length = next(enough, (tile.origin, 1 << (max_iter - 1).bit_length()))
        if asked not in self.futures or self.futures[asked].status in ("error", "cancelled", "lost"):
            key = f"explorer-reference-{uuid.uuid4().hex}"
            self.futures[asked] = self.client.submit(_compute_reference, tile.origin, length, key, key=key, pure=False)
        return _compute_deep_tile, tile, max_iter, self.futures[asked]

    def words(self) -> str:
        """What is at work; empty where nothing is."""
        for (origin, _), future in self.futures.items():
            if future.status == "pending":
                far = self.progress.get(future.key, "waiting for a worker")
                return f"Computing a reference orbit of {origin.digits} digits: {far}."
        return ""
