"""Whatever happens to a store, in any order: each tile of it is right, or known to be missing."""

from __future__ import annotations

import shutil
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mandeldask as md
from mandeldask.errors import DamagedError
from mandeldask.field import Timed
from mandeldask.job.ledger import Ledger
from mandeldask.job.plan import Levels
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, Store, open_for_writing, open_store
from mandeldask.tile import read_block

VIEW = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(1030, 1100))
FIELD = Description.of(VIEW, 12, ("escape_time",), (512, 512))
DEEPER = Description.of(VIEW, 30, ("escape_time",), (512, 512))
TILES = list(product(*map(range, FIELD.tiles)))
MODEL = {d: KERNELS["numpy"](d.max_iter)(VIEW.block((0, 1030), (0, 1100))) for d in (FIELD, DEEPER)}
harms = st.sampled_from(["flip", "cut", "empty", "remove"])


def wanted(d, level, tile):
    k = 1 << level
    rows, columns = d.levels[level].window(tile)
    return MODEL[d][::k, ::k][slice(*rows), slice(*columns)]


def of_model(c):
    """A kernel that knows the answers of the deeper field."""
    (low, high), (bottom, top) = VIEW.x, VIEW.y
    x = np.rint((c.real - low) / (high - low) * (VIEW.shape[1] - 1)).astype(int)
    y = np.rint((c.imag - bottom) / (top - bottom) * (VIEW.shape[0] - 1)).astype(int)
    return MODEL[DEEPER][y, x]


def make_levels(store):
    """As a driver does: each as soon as what it is made from is there."""
    levels = Levels(store)
    ready = list(levels.ready())
    while ready:
        tile = ready.pop()
        try:
            store.write_level(tile[0], tile[1:])
        except DamagedError:
            continue
        ready += levels.made(tile)


class AStore(RuleBasedStateMachine):
    @initialize()
    def make(self):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.zarr"
        open_for_writing(self.path, FIELD)
        self.readable = True  # the metadata was not harmed since it was last repaired

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def opened(self) -> Store | None:
        try:
            return open_store(self.path)
        except md.StoreError:
            assert not self.readable
            return None

    @rule(tiles=st.sets(st.sampled_from(TILES), min_size=1))
    def workers_write(self, tiles):
        if store := self.opened():
            for tile in sorted(tiles):
                store.write(tile, wanted(FIELD, 0, tile))

    @rule(tile=st.sampled_from(TILES))
    def a_worker_is_killed_between_two_shards(self, tile):
        if store := self.opened():
            store.place.put_all(store._shards(FIELD.fine, tile, wanted(FIELD, FIELD.fine, tile)))

    @rule(tile=st.sampled_from(TILES))
    def a_worker_is_killed_within_a_shard(self, tile):
        folder = self.path / f"0/escape_time/c/{tile[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{tile[1]}.{'0123456789abcdef' * 2}.partial").write_bytes(b"half a shard")

    @rule(harm=harms, data=st.data())
    def a_value_is_harmed(self, harm, data):
        values = sorted(p for p in self.path.glob("**/c/**/*") if p.is_file() and p.suffix != ".partial")
        self.harm(data.draw(st.sampled_from(values)), harm, data)

    @precondition(lambda self: self.readable)
    @rule(harm=harms, data=st.data())
    def metadata_is_harmed(self, harm, data):
        self.harm(data.draw(st.sampled_from(sorted(self.path.rglob("zarr.json")))), harm, data)
        self.readable = False

    def harm(self, file, harm, data):
        content = bytearray(file.read_bytes())
        if harm == "remove":
            file.unlink()
            return
        if harm == "flip" and content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        file.write_bytes(content if harm == "flip" else content[: len(content) // 2] if harm == "cut" else b"")

    @rule()
    def resume(self):
        try:
            store = open_for_writing(self.path, FIELD)
        except md.StoreError:
            assert not self.readable
            return
        ledger = Ledger(store)
        for tile in np.argwhere(~store.done()).tolist():
            store.write(tuple(tile), wanted(FIELD, 0, tuple(tile)))
        make_levels(store)
        ledger.complete(store.done())
        ledger.flush()
        store.finish()
        assert store.done().all()

    @rule(quick=st.booleans())
    def verify(self, quick):
        """Names each shard that cannot be read, and no other."""
        found = md.verify(self.path, quick=quick)
        named = {finding.key for finding in found.findings if finding.kind == "shard"}
        if store := self.opened():
            assert named == {key for key, state in self.states(store) if state in ("damaged", "empty")}
            assert found.missing == np.count_nonzero(~store.done())
        assert not found.kinds.keys() & {"value", "level", "stray"}

    @rule(quick=st.booleans())
    def repair(self, quick):
        md.verify(self.path, quick=quick, remove_damaged=True)
        self.readable = True
        assert {state for _, state in self.states(open_store(self.path))} <= {"right", "missing"}
        assert md.verify(self.path).findings == ()

    @rule()
    def repair_and_resume(self):
        self.repair(quick=True)
        self.resume()
        assert {state for _, state in self.states(open_store(self.path))} == {"right"}
        assert md.verify(self.path).exit_code == 0

    @rule(tile=st.sampled_from(TILES))
    def deepen(self, tile):
        if source := self.opened():
            store = open_for_writing(self.folder / "deeper.zarr", DEEPER)
            samples = VIEW.block(*DEEPER.levels[0].window(tile))
            store.write(tile, Timed(of_model, "a model")(samples, read_block(source, DEEPER.max_iter, tile)))
            assert np.array_equal(store.read(tile), wanted(DEEPER, 0, tile))

    @invariant()
    def each_tile_is_right_or_known_to_be_missing(self):
        if store := self.opened():
            done = [store.done(level.number) for level in FIELD.levels]
            for key, state in self.states(store):
                level, _, _, i, j = key.split("/")
                assert state in ("right", "missing", "damaged", "empty")
                assert done[int(level)][int(i), int(j)] == (state in ("right", "damaged"))

    def states(self, store):
        """What a reader gets of each tile of each level."""
        for level in FIELD.levels:
            for tile in product(*map(range, level.tiles)):
                key = f"{level.number}/escape_time/c/{tile[0]}/{tile[1]}"
                try:
                    samples = store.read_shard(tile, level.number)
                except DamagedError:
                    yield key, "damaged"
                    continue
                if samples is None:
                    yield key, "empty" if (self.path / key).exists() else "missing"
                else:
                    right = np.array_equal(samples, wanted(FIELD, level.number, tile))
                    yield key, "right" if right else "wrong"


AStore.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a failure takes minutes
)
TestAStore = AStore.TestCase
