"""A store in a bucket: the place itself, what a user does with it, what he may get wrong, and who sees the secret."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner
from services import ENV, Processes, poll

import mandeldask as md
from mandeldask.cli import cli
from mandeldask.config import parse
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, Place, Store, open_for_writing, open_store, place_of
from mandeldask.store.bucket import Bucket

UNIT = {
    "view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]},
    "max_iter": 50,
    "tile": [25, 40],
    "kernel": "numpy",
    "cluster": {"kind": "local", "workers": 1},
}
TILES = 12
DESCRIPTION = Description.of(parse(UNIT).view, 50, ("escape_time",), (25, 40))


@pytest.fixture(scope="module")
def field():
    return KERNELS["numpy"](50)(parse(UNIT).view.block((0, 100), (0, 120)))


@pytest.fixture(scope="module")
def checksum(field):
    return hashlib.sha256(field.astype("<i4").tobytes()).hexdigest()


@pytest.fixture
def described(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(UNIT))
    return path


def mandeldask(*words):
    """A command, in this process."""
    return CliRunner().invoke(cli, words)


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        (tmp_path / "a.zarr").mkdir()
        return place_of(tmp_path / "a.zarr")
    return place_of(request.getfixturevalue("bucket"))


def test_a_place_holds_whole_values_by_their_keys(place):
    """A folder and a bucket do the same."""
    assert (place.names(), list(place.sizes("")), place.get("zarr.json")) == ([], [], None)
    place.create("zarr.json", b"first")
    place.create("zarr.json", b"second")
    assert place.get("zarr.json") == b"first"
    place.put("0/y/c/0", b"0123456789")
    assert (place.get("0/y/c/0"), place.size("0/y/c/0")) == (b"0123456789", 10)
    before = place.stamp("0/y/c/0")
    assert before == place.stamp("0/y/c/0")
    place.put("0/y/c/0", b"9876543210")
    assert before != place.stamp("0/y/c/0")
    assert (place.get("0/y/c/1"), place.size("0/y/c/1"), place.stamp("0/y/c/1")) == (None, None, None)
    place.put("0/y/c/0", b"")
    assert (place.get("0/y/c/0"), place.size("0/y/c/0")) == (b"", 0)
    assert place.names() == ["0", "zarr.json"]
    assert dict(place.sizes("0/y/c")) == {"0": 0}
    assert dict(place.sizes("")) == {"0/y/c/0": 0, "zarr.json": 5}
    assert list(place.sizes("1")) == []
    place.delete("zarr.json")
    place.delete("zarr.json")
    assert place.get("zarr.json") is None
    assert place_of(place) is place
    assert pickle.loads(pickle.dumps(place)) == place
    place.remove()
    assert list(place.sizes("")) == []


def test_of_many_who_create_a_key_one_does(place):
    start = threading.Barrier(8)

    def create(n):
        start.wait()
        place.create("zarr.json", b"%d" % n)
        return place.get("zarr.json")

    with ThreadPoolExecutor(8) as creators:
        found = set(creators.map(create, range(8)))
    assert found == {place.get("zarr.json")}


def test_two_runs_that_make_a_store_at_once_make_one(bucket):
    start = threading.Barrier(2)

    def make(_):
        start.wait()
        return open_for_writing(bucket, DESCRIPTION)

    with ThreadPoolExecutor(2) as makers:
        first, second = makers.map(make, range(2))
    assert first == second == open_store(bucket)
    assert (first.done() == np.zeros((4, 3))).all()


def test_a_listing_of_more_than_a_page_is_whole(bucket):
    place = place_of(bucket)
    keys = [f"{row}/{column}" for row in range(3) for column in range(400)] + ["aside"]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda key: place.put(f"0/escape_time/c/{key}", b"x"), keys))
    assert sorted(place.sizes("0/escape_time/c")) == sorted((key, 1) for key in keys)


def test_a_run_takes_the_url_of_its_store(bucket, described, checksum, field, tmp_path):
    url = f"{bucket}/a.zarr"
    env = os.environ | {"PYTHONPATH": ENV["PYTHONPATH"]}
    command = [sys.executable, "-m", "mandeldask", "run", described, "--set", f"store={url}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"mandeldask image {url} large.png" in done.stderr
    assert f'mandeldask.open("{url}")' in done.stderr
    assert [path.name for path in tmp_path.glob("*.png")] == ["a.png"]
    store = open_store(url)
    assert store.checksum() == checksum
    assert "lease" not in store.read_notes()
    for level in range(len(store.description.levels)):
        opened = md.open(url, level).compute(scheduler="threads")  # a cluster of other tests has no credentials
        assert np.array_equal(opened.escape_time, field[:: 1 << level, :: 1 << level])


def test_every_command_takes_the_url_of_a_store(bucket, checksum, field, tmp_path):
    store = open_for_writing(f"{bucket}/a.zarr", DESCRIPTION)
    for i, j in np.ndindex(4, 3):
        if (i, j) != (1, 2):
            store.write((i, j), np.ascontiguousarray(field[25 * i : 25 * (i + 1), 40 * j : 40 * (j + 1)]))
    status = json.loads(mandeldask("status", store.path, "--json").stdout)
    assert (status["state"], status["done"], status["store"]) == ("incomplete", TILES - 1, store.path)
    assert f"mandeldask resume {store.path}" in mandeldask("status", store.path).stdout
    summary = md.resume(store.path, kernel="numpy", cluster={"kind": "local", "workers": 1})
    assert (summary.computed, summary.failed) == (1, 0)
    assert mandeldask("checksum", store.path).stdout.split() == [checksum, store.path]
    assert mandeldask("wait", store.path).exit_code == 0
    assert mandeldask("image", store.path, str(tmp_path / "b.png")).exit_code == 0
    assert (tmp_path / "b.png").stat().st_size > 0


def test_overwriting_removes_our_own_keys_and_no_others(bucket):
    url = f"{bucket}/a.zarr"
    before = open_for_writing(url, DESCRIPTION)
    for name in ("b.zarr", "a.zarr.txt"):
        place_of(bucket).put(f"{name}/zarr.json", b"another's")
    with pytest.raises(md.StoreError, match="lies inside"):
        open_for_writing(f"{url}/0/inside", DESCRIPTION)
    with pytest.raises(md.StoreError, match="holds something else"):
        open_for_writing(bucket, DESCRIPTION, overwrite=True)
    with pytest.raises(md.StoreError, match="max_iter is 50 there, 60 here"):
        open_for_writing(url, Description.of(parse(UNIT).view, 60, ("escape_time",), (25, 40)))
    before.place.put("0/notes.txt", b"a person's")
    with pytest.raises(md.StoreError, match=r"also holds 0/notes\.txt"):
        open_for_writing(url, DESCRIPTION, overwrite=True)
    before.place.delete("0/notes.txt")
    before.write((0, 0), np.ones((25, 40), np.int32))
    after = open_for_writing(url, DESCRIPTION, overwrite=True)
    assert after.identity != before.identity
    assert not after.done().any()
    assert place_of(bucket).get("b.zarr/zarr.json") == place_of(bucket).get("a.zarr.txt/zarr.json") == b"another's"
    with pytest.raises(md.StoreError, match="was replaced"):
        before.write((0, 0), np.ones((25, 40), np.int32))


def test_a_tile_asks_for_the_root_and_its_shards_alone(bucket, monkeypatch):
    store = open_for_writing(bucket, DESCRIPTION)
    asked = []
    for name in ("get", "set"):
        ask = getattr(Bucket, name)
        monkeypatch.setattr(Bucket, name, lambda *what, ask=ask, **how: asked.append(what[1]) or ask(*what, **how))
    stamp = Place.stamp
    monkeypatch.setattr(Place, "stamp", lambda place, key: asked.append(key) or stamp(place, key))
    store.write((0, 0), np.ones((25, 40), np.int32))
    asked.clear()
    store.write((0, 1), np.ones((25, 40), np.int32))
    assert list(dict.fromkeys(asked)) == ["zarr.json", "0/escape_time/c/0/1"]


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "fields", "refuses the credentials .403 SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "fields", "refuses the credentials .403 InvalidAccessKeyId"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "fields", "half a pair of keys: .* AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "READER"}, "fields", "denies access to s3://fields/.* .403 AccessDenied"),
        ({}, "no-such-bucket", "has no bucket no-such-bucket"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            "fields",
            "no answer from .* .Connection refused.: is AWS_",
        ),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, "fields", "no such host"),
        ({"AWS_ENDPOINT_URL": "http://a:b@127.0.0.1:1"}, "fields", "without a name or a password"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "fields",
            "no credentials for s3://fields/.*: set AWS_ACCESS_KEY_ID",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"},
            "fields",
            "no credentials for s3://fields/.*: set AWS_ACCESS_KEY_ID",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "work"},
            "fields",
            "AWS_PROFILE names work",
        ),
    ],
)
def test_what_is_wrong_with_a_bucket_is_told(bucket, s3, monkeypatch, change, name, message):
    """By whoever opens the store first: in a line, without the secret."""
    for variable, value in change.items():
        if value:
            monkeypatch.setenv(variable, value)
        else:
            monkeypatch.delenv(variable)
    with pytest.raises(md.StoreError, match=message) as told:
        open_for_writing(bucket.replace("fields", name), DESCRIPTION)
    assert str(told.value).count("\n") == 0
    assert len(str(told.value)) < 400
    assert not any(secret in str(told.value) for secret in ("wrong", "a:b", s3.secret))


def test_credentials_that_are_mended_are_used_by_what_is_open(bucket, s3, monkeypatch):
    """Keys expire while a store is open; its arrays and its place were opened with the old ones."""
    store = open_for_writing(bucket, DESCRIPTION)
    tile = np.ones((25, 40), np.int32)
    store.write((0, 0), tile)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    with pytest.raises(md.StoreError, match="refuses the credentials"):
        store.place.put("0/notes.txt", b"")
    with pytest.raises(md.StoreError, match="refuses the credentials"):
        store.window(slice(None), slice(None))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    store.write((0, 1), tile)
    assert (store.window(slice(0, 25), slice(0, 80)) == 1).all()


def test_a_tile_that_came_too_late_for_its_store_is_taken_back(bucket, monkeypatch):
    store, check, new = open_for_writing(bucket, DESCRIPTION), Store.check_identity, []

    def check_and_sleep(self, *here):
        check(self, *here)
        if not new:
            new.append(open_for_writing(bucket, replace(DESCRIPTION, max_iter=7), overwrite=True))

    monkeypatch.setattr(Store, "check_identity", check_and_sleep)
    with pytest.raises(md.StoreError, match="was replaced"):
        store.write((0, 0), np.ones((25, 40), np.int32))
    assert not new[0].done().any()


def test_a_missing_store_and_a_missing_extra_are_told(bucket, monkeypatch):
    with pytest.raises(md.StoreError, match=r"no store at s3://fields/.*; compute one with"):
        open_store(f"{bucket}/nothing.zarr")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(md.StoreError, match=r"needs obstore: .*pip install '.*\[objects\]'"):
        open_store(bucket)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://a/b", "a store is a path, or a URL of s3://, gs://"),
        ("ftp://host/a.zarr", "a store is a path, or a URL of s3://, gs://"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3://bucket//a", "s3://BUCKET/PREFIX"),
        ("s3://bucket/../a", "s3://BUCKET/PREFIX"),
        ("s3://bucket/a?X-Amz-Signature=abc", "s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/a", "credentials are no part of it"),
        ("s3:/bucket/a", "a Path has lost a slash"),
    ],
)
def test_a_url_is_a_scheme_a_bucket_and_a_prefix(url, message):
    with pytest.raises(md.StoreError, match=message) as told:
        place_of(url)
    assert not {"secret", "abc"} & set(str(told.value).replace("=", " ").replace(":", " ").split())


def test_a_url_is_read_in_one_way():
    assert place_of("S3://fields/a/b.zarr/").url == place_of("s3a://fields/a/b.zarr").url == "s3://fields/a/b.zarr"
    assert [place.url for place in place_of("s3://fields/a/b.zarr").above()] == ["s3://fields/a", "s3://fields"]


def test_a_profile_is_read_by_boto3(bucket, s3, monkeypatch, tmp_path):
    """Of AWS's own files, by AWS's own reader; where that is missing, the message says what to do."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = tmp_path / "credentials"
    keys.write_text(f"[lab]\naws_access_key_id = WRITER\naws_secret_access_key = {s3.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    if find_spec("boto3"):
        assert open_for_writing(bucket, DESCRIPTION) == open_store(bucket)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)
    with pytest.raises(md.StoreError, match=r"pip install boto3, or .*export-credentials --profile lab"):
        open_store(f"{bucket}/other.zarr")


def test_a_job_runs_where_the_credentials_are_and_nobody_else_sees_them(bucket, s3, checksum, monkeypatch, tmp_path):
    """Submitted by a client that has none; then bucket, logs, scheduler and pickles are searched for the secret."""
    env = {name: value for name, value in ENV.items() if not name.startswith("AWS_")}
    url, secret = f"{bucket}/a.zarr", s3.secret.encode()
    with Processes(tmp_path / "dask", workers=0, env=env) as dask:
        for _ in range(2):
            dask.start_worker("--no-nanny", env=env | s3.env)
        with dask.wait().client() as client:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            submitted = md.submit(UNIT, url, name="job", client=client)
            end = poll(lambda: (now := md.job("job", client=client).status()).ended and now, "the end of the job")
            with pytest.raises(md.StoreError, match="no credentials"):
                md.status(url)
            assert (end.state, end.done, submitted.store) == ("finished", TILES, url)
            said = [repr(submitted), repr(end), repr(submitted.logs())]

            for name, value in s3.env.items():
                monkeypatch.setenv(name, value)
            numbers = md.open(url).chunk()
            kept = client.persist(numbers.escape_time)
            assert kept.sum().compute() > 0
            known = client.run_on_scheduler(scheduler_knows)
        said += [file.read_text(errors="replace") for file in (tmp_path / "dask").glob("*.log")]
    store = open_store(url)
    assert store.checksum() == checksum
    assert b"escape_time" in known
    assert len(known) > 10_000
    assert "the driver runs on" in "".join(said)
    assert s3.secret not in "".join(said)
    assert secret not in known
    for thing in (store, store.place, store.place.zarr(), store.escape_time, numbers):
        assert secret not in pickle.dumps(thing)
        assert s3.secret not in repr(thing)
    assert pickle.loads(pickle.dumps(store.place.zarr())).url == store.path
    stored = s3.stored(url.removeprefix("s3://fields/"))
    assert len(stored) > TILES
    assert not any(secret in value for value in stored.values())


def scheduler_knows(dask_scheduler=None):
    """All that a scheduler was told, as bytes: events, metadata, and the tasks as they came."""
    tasks = [(str(task.run_spec), pickle.dumps(task.run_spec)) for task in dask_scheduler.tasks.values()]
    events = {
        topic: list(broker._topics[topic].events) for broker in [dask_scheduler._broker] for topic in broker._topics
    }
    return repr((tasks, events, dask_scheduler.task_metadata)).encode()
