"""Power cuts, on a real ext4: what the disk has not been given is gone, and a run on what is left ends as any other."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
from conftest import skip_or_fail
from services import poll

import mandeldask as md
from mandeldask.job import TileDone
from mandeldask.store import Description, open_for_writing, open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [96, 96]}, "max_iter": 50, "tile": [12, 12], "kernel": "numpy"}
TILES = 64
FIELD = Description.of(md.View((0, 1), (0, 1), (96, 96)), 50, ("escape_time",), (12, 12))
SHUTDOWN, AT_ONCE = 0x8004587D, struct.pack("I", 2)  # of Linux, _IOR('X', 125, __u32): xfstests cut the power so


class Disk:
    """An ext4 in a file, mounted at `folder`."""

    def __init__(self, folder):
        self.image, self.folder = folder / "image", folder / "disk"
        self.folder.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(64 * 2**20)
        made = shutil.which("mkfs.ext4") and subprocess.run(["mkfs.ext4", "-q", self.image], check=False)
        if not made or made.returncode or self.mount().returncode:
            skip_or_fail("an ext4 in a file, mounted, needs root, mkfs.ext4 and loop devices")

    def mount(self):
        return subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=False)

    def cut(self):
        """Cut the power: nothing more reaches the disk, and what only the memory had is lost."""
        opened = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(opened, SHUTDOWN, AT_ONCE)
        os.close(opened)

    def power_up(self):
        poll(lambda: subprocess.run(["umount", self.folder], check=False).returncode == 0, "the last worker's write")
        # a copy: a process with mounts of its own, begun meanwhile, has the disk without power still
        self.image = shutil.copyfile(self.image, self.image.with_name("copy"))
        assert self.mount().returncode == 0


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path)
    yield disk
    subprocess.run(["umount", "-l", disk.folder], check=False)  # a worker may have it open still


@pytest.fixture(scope="module")
def undisturbed(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    md.run(UNIT, path, client=client)
    return open_store(path)


def assert_whole(path, undisturbed):
    assert md.verify(path).exit_code == 0
    assert open_store(path).checksum() == undisturbed.checksum()


def test_a_finished_run_outlasts_a_power_cut(client, disk, undisturbed):
    md.run(UNIT, disk.folder / "a.zarr", client=client)
    disk.cut()
    disk.power_up()
    assert_whole(disk.folder / "a.zarr", undisturbed)


@pytest.mark.parametrize("after", [1, 30])
def test_a_power_cut_in_mid_run_takes_the_tiles_in_work_and_no_other(client, disk, undisturbed, after):
    path, finished = disk.folder / "a.zarr", []

    def tell(event):
        if isinstance(event, TileDone):
            finished.append(event.record.tile)
            if len(finished) == after:
                disk.cut()

    with pytest.raises(md.StoreError):
        md.run(UNIT, path, client=client, tell=tell)
    disk.power_up()
    store = open_store(path)
    assert all(store.done()[tile] for tile in finished[:after])
    for level in store.description.levels:
        for tile in map(tuple, np.argwhere(store.done(level.number)).tolist()):
            assert np.array_equal(store.read(tile, level.number), undisturbed.read(tile, level.number))
    assert md.verify(path).exit_code == 4
    md.run(UNIT, path, client=client)
    assert_whole(path, undisturbed)


def test_a_store_that_was_just_made_outlasts_a_power_cut(disk):
    store = open_for_writing(disk.folder / "new/a.zarr", FIELD)
    disk.cut()
    disk.power_up()
    assert open_store(store.path) == store
    assert md.verify(store.path).damaged == 0


@pytest.mark.parametrize("root", [None, b"", b'{"zarr_format": 3, "no', b"[" * 100_000])
def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path, root):
    """As a disk that lies, or a mandeldask that did not wait for it, leaves it."""
    path = tmp_path / "a.zarr"
    old = open_for_writing(path, FIELD)
    for file in (p for p in path.rglob("*") if p.is_file()):
        file.write_bytes(b"")
    (path / "zarr.json").unlink() if root is None else (path / "zarr.json").write_bytes(root)
    (path / "0/escape_time/c/0").mkdir(parents=True)
    (path / "0/escape_time/c/0/0").touch()
    with pytest.raises(md.StoreError, match=f"interrupted .*: `mandeldask run CONFIG --out {path}` creates it again"):
        open_store(path)
    new = open_for_writing(path, FIELD)
    assert new.identity != old.identity
    assert not new.done().any()
    new.place.sweep(0)  # as a run does
    assert md.verify(path).damaged == 0


@pytest.mark.parametrize("there", ["0/escape_time/c/1/1", "0/x/c/0", "notes.txt", "5/photo.jpg", "zarr.json/photo.jpg"])
def test_what_may_be_of_worth_beside_an_unreadable_root_is_left_alone(tmp_path, there):
    path = tmp_path / "a.zarr"
    open_for_writing(path, FIELD)
    (path / "zarr.json").unlink()
    if there != "0/x/c/0" and "zarr.json" not in there:
        (path / "zarr.json").write_bytes(b"")
    (path / "0/zarr.json").unlink()
    (path / there).parent.mkdir(parents=True, exist_ok=True)
    (path / there).write_bytes(b"samples")
    for overwrite in (False, True):
        with pytest.raises(md.StoreError, match="holds something else"):
            open_for_writing(path, FIELD, overwrite=overwrite)
    assert (path / there).read_bytes() == b"samples"
