"""Disks that are full, fail or go away: a clear end, nothing wrong in the store, and a resume to the same checksum."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from conftest import skip_or_fail
from services import ENV, Processes

import mandeldask as md
from mandeldask.job import Notice, TileDone
from mandeldask.store import Description, open_for_writing, open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [96, 96]}, "max_iter": 50, "tile": [12, 12], "kernel": "numpy"}
TILES = 64
SEAHORSE = {"view": {"centre": ["-0.7436", "0.1318"], "span": "1e-3", "shape": [2048, 2048]}, "max_iter": 500}
FIU = ("/usr/lib/fiu/fiu_posix_preload.so", "/usr/local/lib/fiu/fiu_posix_preload.so")


@pytest.fixture(scope="module")
def undisturbed(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    md.run(UNIT, path, client=client)
    return open_store(path)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own: a function that sets its options, and again others; by default 50 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        skip_or_fail("mounting a small tmpfs needs root")

    def remount(options):
        return subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=False).returncode == 0

    yield folder, remount
    subprocess.run(["umount", str(folder)], check=True)


def assert_right(store, undisturbed):
    """Each tile of each level is right, or known to be missing."""
    for level in store.description.levels:
        for tile in map(tuple, np.argwhere(store.done(level.number)).tolist()):
            assert np.array_equal(store.read(tile, level.number), undisturbed.read(tile, level.number))


def assert_resumes(store, undisturbed, client):
    assert md.resume(store.path, kernel="numpy", client=client).failed == 0
    assert store.checksum() == undisturbed.checksum()
    assert all(store.done(level.number).all() for level in store.description.levels)
    assert md.status(store.path).state == "finished"


@pytest.mark.parametrize(
    ("options", "message"), [("nr_inodes={}", "No space left on device"), ("ro", "Read-only file system")]
)
def test_a_disk_that_takes_no_more_files_ends_the_run_and_resume_goes_on(client, disk, undisturbed, options, message):
    folder, remount = disk
    hindered = []

    def tell(event):
        while isinstance(event, TileDone) and not hindered:  # read-only it cannot be in the midst of a write
            disk = os.statvfs(folder)
            if remount(options.format(disk.f_files - disk.f_ffree + 5)):
                hindered.append(options)

    with pytest.raises(md.StoreError, match=rf"cannot write .*{message}.*mandeldask resume {folder / 'a.zarr'}"):
        md.run(UNIT, folder / "a.zarr", client=client, tell=tell)
    assert remount("rw,nr_inodes=10000")
    store = open_store(folder / "a.zarr")
    assert 0 < store.done().sum() < TILES
    assert_right(store, undisturbed)
    assert_resumes(store, undisturbed, client)


@pytest.mark.parametrize("away", [lambda path: path.rename(path.with_name("b.zarr")), shutil.rmtree])
def test_a_store_that_vanishes_in_mid_run_ends_it_and_is_not_made_again(client, tmp_path, away):
    path = tmp_path / "a.zarr"
    gone = []

    def tell(event):
        while isinstance(event, TileDone) and not gone:
            try:
                away(path)
                gone.append(path)
            except OSError:  # a tile was written while it was removed
                continue

    with pytest.raises(md.StoreError, match=r"cannot be seen from|cannot write"):
        md.run({**UNIT, "tile": [6, 6]}, path, client=client, tell=tell)
    assert gone
    assert not path.exists()


def failing(share, error):
    """The environment of a process whose writes are to fail, with libfiu before the C library."""
    library = next((path for path in FIU if Path(path).exists()), None)
    if library is None:
        skip_or_fail("needs libfiu: apt-get install fiu-utils")
    return ENV | {"LD_PRELOAD": library, "FAILING_WRITES": f"{share} {error}", "COUNTED": "/dev/null"}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_writes_of_workers_that_fail_at_random_leave_nothing_wrong(tmp_path, client, undisturbed, error):
    options = ("--no-nanny", "--preload", "preloaded")
    with Processes(tmp_path / "dask", 1, options, env=failing(0.05, error)) as dask, dask.client() as theirs:
        for _ in range(3):
            try:
                md.run(UNIT, tmp_path / "a.zarr", client=theirs)
            except md.MandeldaskError as failure:
                assert re.search("cannot write|cannot use the store", str(failure)), failure  # noqa: PT017
                assert os.strerror(error) in str(failure)  # noqa: PT017
            store = open_store(tmp_path / "a.zarr")
            assert_right(store, undisturbed)
    assert_resumes(store, undisturbed, client)


def test_writes_of_the_driver_that_fail_at_random_leave_nothing_wrong(tmp_path, client, undisturbed):
    program = f"""if True:
        import os
        import faults
        import mandeldask as md
        from distributed import Client
        client = Client({client.scheduler.address!r})
        faults.failing_writes(0.1, {errno.EIO})
        try:
            md.run({UNIT!r}, "a.zarr", client=client)
        except md.StoreError as error:
            assert {os.strerror(errno.EIO)!r} in str(error), error
            os._exit(3)
        os._exit(0)
    """
    for _ in range(3):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=failing(0, 0), capture_output=True, timeout=120, check=False)
        assert done.returncode in (0, 3), done.stderr.decode()
        if (tmp_path / "a.zarr" / "zarr.json").exists():
            assert_right(open_store(tmp_path / "a.zarr"), undisturbed)
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    assert_resumes(open_store(tmp_path / "a.zarr"), undisturbed, client)


def test_what_dead_writers_left_is_swept_and_nothing_of_living_ones(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    shards = tmp_path / "a.zarr/0/escape_time/c"
    (shards / "1/1").unlink()

    def left(name, age):
        partial = shards / "1" / f"{name}.{os.urandom(16).hex()}.partial"
        partial.write_bytes(bytes(2048))
        os.utime(partial, (time.time() - age,) * 2)
        return partial

    old, young, living = left("old", 3600), left("young", 2), []
    said = []

    def tell(event):
        if isinstance(event, TileDone):
            assert not old.exists()
            assert young.exists()
            living.append(left("1", -60))
        if isinstance(event, Notice):
            said.append((event.about, event.text))

    md.resume(tmp_path / "a.zarr", client=client, tell=tell)
    assert not young.exists()
    assert living[0].exists()
    assert said == [("store", "removed 2.00 KiB of partial files that killed writers had left")] * 2


def test_what_a_killed_overwrite_left_is_swept_by_the_next_run(client, tmp_path):
    path, mine = tmp_path / "a.zarr", tmp_path / "a.zarr.removed-20261127"
    md.run(UNIT, path, client=client)
    mine.mkdir()
    program = f"""if True:
        import os, shutil, signal
        import mandeldask as md
        shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        md.run({UNIT}, "a.zarr", overwrite=True)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=ENV, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = (p for p in tmp_path.glob("a.zarr.removed-*") if p != mine)
    said = []
    md.run(UNIT, path, client=client, tell=lambda event: said.append(getattr(event, "text", "")))
    assert f"removing {left}, which a killed run had begun to overwrite" in said
    assert sorted(tmp_path.iterdir()) == [path, mine]


def test_a_field_that_may_not_fit_is_begun_with_a_word_and_ends_where_the_disk_is_full(client, disk):
    folder, remount = disk
    assert remount("size=1m")
    said = []
    with pytest.raises(md.StoreError, match="No space left on device"):
        md.run(
            SEAHORSE | {"tile": [256, 256]},
            folder / "a.zarr",
            client=client,
            tell=lambda e: said.append(getattr(e, "text", "")),
        )
    assert any("it may not fit" in text for text in said), said
    assert remount("size=50m")
    assert md.run(SEAHORSE, folder / "a.zarr", client=client).failed == 0


def test_a_field_of_absurd_size_is_refused_before_anything_is_made(client, disk):
    folder, _ = disk
    absurd = {**UNIT, "view": {"x": [0, 1], "y": [0, 1], "shape": [2**22, 2**22]}, "tile": [4096, 4096]}
    with pytest.raises(md.StoreError, match=r"17.6 T samples need at least .* GiB .*--ignore-space"):
        md.run(absurd, folder / "b.zarr", client=client)
    assert not (folder / "b.zarr").exists()


def test_runs_that_make_the_same_store_at_once_make_one(tmp_path):
    description = Description.of(md.View((0, 1), (0, 1), (100, 120)), 50, ("escape_time",), (25, 40))
    for k in range(3):
        together = Barrier(4)

        def make(k, together=together):
            together.wait(60)
            return open_for_writing(tmp_path / f"{k}.zarr", description)

        with ThreadPoolExecutor(4) as threads:
            stores = list(threads.map(make, [k] * 4))
        assert len(set(stores)) == 1
        assert md.verify(stores[0].path).damaged == 0
