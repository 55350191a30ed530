"""What a field is, and the grids of tiles that its levels are cut into; pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from functools import cached_property
from itertools import pairwise
from os.path import commonprefix
from typing import Any, get_args

from mandeldask.kernels import EXACT_FIELDS, FIELDS, Proof
from mandeldask.view import Deep, Frame, Range, View, frame_from_json

FORMAT_VERSION = 4
READABLE = (2, 3, 4)  # 3 had smooth in float32; 2 zstd in the place of Blosc too
Tile = tuple[int, int]  # row and column in a grid of tiles
# A viewer reads chunks. 512 a side rather than 256 writes a 2048 shard in half the time.
CHUNK_SIDE = (256, 512)
MAX_TILES = 2**22  # the driver keeps 40 bytes of each, and the store lists them: 70 terapixels at tiles of 4096
MAX_SAMPLES = 2**46  # those 70 terapixels: what claims more was not computed
MAX_TOLD = 60  # characters of a value that differs
DIFFERENCES = 3  # that are told
MAX_CHUNK = 2**25  # samples: 128 MiB of escape times
# Levels that a tile's own task writes beside it, from the samples it has at hand; the level above these is a
# sixteenth, which its tile reads from the shards at 1 % of the run's time.
MAX_FINE = 2


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: every `stride`-th sample of the field, itself a field, cut into tiles."""

    number: int
    shape: tuple[int, int]  # samples
    tile: tuple[int, int]  # samples; one tile, one shard

    @property
    def stride(self) -> int:
        return 1 << self.number

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of the grid of tiles."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    def window(self, tile: Tile) -> tuple[Range, Range]:
        """The ranges of the level's indices that a tile covers: rows and columns."""
        rows, columns = (
            (i * side, min((i + 1) * side, n)) for i, side, n in zip(tile, self.tile, self.shape, strict=True)
        )
        return rows, columns

    def tile_shape(self, tile: Tile) -> tuple[int, int]:
        """Rows and columns of samples of a tile: less than `self.tile` at the edge."""
        (top, bottom), (left, right) = self.window(tile)
        return bottom - top, right - left


@dataclass(frozen=True)
class Description:
    """What a field is, and all that two runs must agree on to work on the same store."""

    x: tuple[float, float]
    y: tuple[float, float]
    shape: tuple[int, int]
    registration: str
    max_iter: int
    fields: tuple[str, ...]
    tile: tuple[int, int]
    format_version: int = FORMAT_VERSION
    frame: Frame | None = None
    proof: Proof = "full"  # in exact arithmetic

    @classmethod
    def of(
        cls, view: View, max_iter: int, fields: tuple[str, ...], tile: tuple[int, int], proof: Proof = "full"
    ) -> Description:
        """The description of a field of `view`; a tile larger than the field is cut to it."""
        rows, columns = (min(side, n) for side, n in zip(tile, view.shape, strict=True))
        made = (view.x, view.y, view.shape, view.registration, max_iter, tuple(fields), (rows, columns))
        return cls(*made, frame=view.frame, proof=proof)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Description:
        """The description that `to_json` gave; ValueError, TypeError or KeyError for anything else."""
        frame = frame_from_json(value["frame"]) if "frame" in value else None
        view = View(value["x"], value["y"], value["shape"], value["registration"], frame)
        max_iter, fields, tile = value["max_iter"], value["fields"], value["tile"]
        whole = all(type(n) is int and 1 <= n < 2**31 for n in (max_iter, *tile))
        if not whole or not set(fields) <= set(FIELDS) or value["format_version"] not in READABLE:
            raise ValueError(f"max_iter {max_iter!r}, tile {tile!r}, fields {fields!r}")
        if value.get("proof", "full") not in get_args(Proof):
            raise ValueError(f"proof {value['proof']!r}")
        made = cls.of(view, max_iter, tuple(fields), tile, value.get("proof", "full"))
        description = replace(made, format_version=value["format_version"])
        if "escape_time" not in fields or description.to_json() != dict(value):
            raise ValueError(f"{dict(value)!r}")
        if problem := description.problem():
            raise ValueError(problem)
        return description

    def to_json(self) -> dict[str, Any]:
        """What the store carries; `frame` is there only for a view that has one, arithmetic and proof in exact."""
        values = {f.name: getattr(self, f.name) for f in fields_of(self) if f.name not in ("frame", "proof")}
        framed = {"frame": self.frame.to_json()} if self.frame else {}
        exact = {"arithmetic": "exact", "proof": self.proof} if self.exact else {}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} | framed | exact

    @property
    def exact(self) -> bool:
        """Whether samples are offsets of any depth, and their counts those of exact arithmetic."""
        return isinstance(self.frame, Deep)

    @property
    def unit(self) -> int | None:
        """Of a deep view: its x and y are in units of 2^unit."""
        return self.frame.unit if isinstance(self.frame, Deep) else None

    def type_of(self, name: str) -> str:
        """Of the samples of a field, as NumPy spells it."""
        if name == "smooth" and self.format_version < 4 and not self.exact:
            return "<f4"
        return (EXACT_FIELDS if self.exact else FIELDS)[name]

    def problem(self) -> str:
        """Why no store can be made of this; empty where one can."""
        tiles = self.tiles[0] * self.tiles[1]
        if tiles > MAX_TILES:
            return f"a store has at most {MAX_TILES} tiles, and tiles of {self.tile[0]} x {self.tile[1]} make {tiles}"
        if self.shape[0] * self.shape[1] > MAX_SAMPLES:
            return f"a store has at most 2^46 samples; {self.shape[0]} x {self.shape[1]} are more"
        chunk = chunk_side(self.tile[0]) * chunk_side(self.tile[1])
        if chunk > MAX_CHUNK:
            return (
                f"a tile of {self.tile[0]} x {self.tile[1]} cannot be divided into chunks of {CHUNK_SIDE[0]} to "
                f"{CHUNK_SIDE[1]} samples a side: take sides that are multiples of {CHUNK_SIDE[1]}"
            )
        return ""

    @property
    def view(self) -> View:
        return View(self.x, self.y, self.shape, self.registration, self.frame)  # type: ignore[arg-type]

    @property
    def tiles(self) -> tuple[int, int]:
        return self.levels[0].tiles

    @cached_property
    def fine(self) -> int:
        """The last of the levels that a tile's own task writes: there tiles are halved with the level."""
        k = 0
        least = CHUNK_SIDE[0]
        while k < min(MAX_FINE, self._last) and all(n % (2 << k) == 0 and n >> (k + 1) >= least for n in self.tile):
            k += 1
        return k

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid: level 0 is the field, and the last the first that is no larger than a tile."""
        levels = []
        for k in range(self._last + 1):
            rows, columns = (-(-n // (1 << k)) for n in self.shape)
            tile = (self.tile[0] >> k, self.tile[1] >> k) if k <= self.fine else self.tile
            levels.append(Level(k, (rows, columns), tile))
        return tuple(levels)

    @property
    def _last(self) -> int:
        return max((-(-n // side) - 1).bit_length() for n, side in zip(self.shape, self.tile, strict=True))

    def children(self, level: int, tile: Tile) -> list[Tile]:
        """The tiles of the level below whose samples a tile holds."""
        below, here = self.levels[level - 1], self.levels[level]
        (top, bottom), (left, right) = here.window(tile)
        rows = range(2 * top // below.tile[0], 2 * (bottom - 1) // below.tile[0] + 1)
        columns = range(2 * left // below.tile[1], 2 * (right - 1) // below.tile[1] + 1)
        return [(i, j) for i in rows for j in columns]

    def made_from(self, tile: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        """A tile, by level, row and column, and those of the levels above that hold samples of it."""
        level, i, j = tile
        yield tile
        for here, above in pairwise(self.levels[level:]):
            sides = zip((i, j), here.tile, above.tile, strict=True)
            i, j = (n * side // 2 // side_above for n, side, side_above in sides)
            yield above.number, i, j

    def differences(self, other: Description) -> list[str]:
        """`name is mine there, other here` for the first entries in which two descriptions differ, bounds last.

        Of two views with a frame, or one, that differ in more than one entry it is `another view`, and comes first. The
        version of the format is none of them.
        """
        framed = [d.frame.to_json() if d.frame else {} for d in (self, other)]
        no = {"frame": None, "format_version": None}
        mine, theirs = ({**f, **d.to_json(), **no} for f, d in zip(framed, (self, other), strict=True))
        keys = sorted((k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)), key="xy".__contains__)
        views, placed = (str(self.view), str(other.view)), {"x", "y", "registration", *framed[0], *framed[1]}
        moved = any(framed) and len(placed & {*keys}) > 1 and views[0] != views[1]
        if moved:
            keys = [k for k in keys if k not in placed]
        told = [f"another view: {views[0]} there, {views[1]} here"] * moved
        told += [_difference(k, str(mine.get(k, "none")), str(theirs.get(k, "none"))) for k in keys[:DIFFERENCES]]
        return told + [f"and {len(keys) - DIFFERENCES} more"] * (len(keys) > DIFFERENCES)


def chunk_side(side: int) -> int:
    """The side of the chunks in a shard of this side: a divisor that suits a viewer, or the whole side."""
    low, high = CHUNK_SIDE
    return next((n for n in range(high, low - 1, -1) if side % n == 0), side)


def _difference(name: str, mine: str, theirs: str) -> str:
    """What is told of it; of the thousands of digits that an origin may have, those from the first that differs on."""
    long = max(len(mine), len(theirs)) > MAX_TOLD
    alike = len(commonprefix([mine, theirs])) if long else 0  # noqa: RUF071 (of text, not of paths)
    here, there = (f"...{text[alike:]}" if alike else text for text in (mine, theirs))
    a, b = (text if len(text) <= MAX_TOLD else f"{text[: MAX_TOLD - 3]}..." for text in (here, there))
    return f"{name} is {a} there, {b} here"
