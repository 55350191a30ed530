"""Clusters that run already, and those a class makes: how they are reached, looked over, and left alone."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from conftest import skip_or_fail
from dask import config as dask_config
from distributed.comm import CommClosedError
from services import ENV, ROOT, Processes, free_port, listening, poll

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask import dashboard
from mandeldask.cli import cli
from mandeldask.cluster import preflight, scheduler, workers
from mandeldask.config import LocalCluster, json_schema, load_cluster
from mandeldask.job import Notice
from mandeldask.store import Description, open_for_writing, open_store

CONFIG = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [200, 240]}, "max_iter": 100, "tile": [50, 60]}
TILES = 16
# Python runs this at its start: where this checkout is installed, it is to be found no more.
FORGET = "import os, sys; sys.path[:] = [p for p in sys.path if not os.path.exists(f'{p}/mandeldask/__init__.py')]"


# Nor are packages that mandeldask needs, and neither Dask nor Numba nor Zarr does.
LACKS = """
class Lacks:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "rich", "bokeh", "threadpoolctl", "xarray", "obstore", "PIL", "cmap"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacks)
"""


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    """The checksum of a plain local run."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    md.run(CONFIG | {"kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A scheduler and two workers as processes, that no test harms."""
    with Processes(tmp_path_factory.mktemp("dask")) as dask:
        yield dask


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A scheduler and two workers with Dask, Numba and Zarr, and no mandeldask."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(FORGET + LACKS)
    with Processes(folder, env=os.environ | {"PYTHONPATH": str(folder)}) as dask:
        yield dask


def call(*words, cwd, env=None):
    command = [sys.executable, "-m", "mandeldask", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=ENV | (env or {}), capture_output=True, text=True, check=False, timeout=90
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


# Schedulers that run already


@pytest.mark.parametrize("named", ["address", "scheduler file", "description", "Dask's setting"])
def test_a_run_on_a_scheduler_gives_the_checksum_of_a_local_one_and_leaves_it_running(dask, tmp_path, whole, named):
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG))
    (tmp_path / "cluster.yaml").write_text(json.dumps({"kind": "scheduler-file", "path": str(dask.file)}))
    options = {
        "address": ["--cluster", dask.address],
        "scheduler file": ["--cluster", dask.file],
        "description": ["--cluster", "cluster.yaml"],
        "Dask's setting": [],
    }[named]
    env = {} if options else {"DASK_SCHEDULER_ADDRESS": dask.address}
    code, out, err = call("run", "run.yaml", "--out", "a.zarr", "--no-image", *options, cwd=tmp_path, env=env)
    assert (code, out) == (0, ""), err
    assert f"cluster    the scheduler {'of' if 'scheduler-file' in err or '.json' in err else 'at'} " in err
    assert "2 workers of 1 thread and 2.00 GiB" in err
    assert open_store(tmp_path / "a.zarr").checksum() == whole
    with dask.client() as client:
        assert len(client.scheduler_info()["workers"]) == 2


def test_what_the_command_prints_of_a_scheduler(dask, tmp_path):
    code, out, err = call("cluster", dask.address, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "2 workers of 1 thread and 2.00 GiB" in out
    assert "client" in out and "scheduler" in out
    code, out, _ = call("cluster", dask.address, "--json", cwd=tmp_path)
    shown = json.loads(out)
    assert (shown["workers"], shown["threads_per_worker"], shown["memory_limit"]) == (2, 1, 2 * 2**30)
    assert shown["versions"]["2 workers"]["mandeldask"] == md.__version__
    assert shown["versions"]["client"] == shown["versions"]["scheduler"] == shown["versions"]["2 workers"]


def test_a_connection_leaves_nothing_odd_in_the_schedulers_log(dask):
    with clusters.connect(load_cluster(dask.address)):
        pass
    assert "closed before handshake" not in dask.log(dask.scheduler)


@pytest.fixture(scope="module")
def strangers():
    """Ports of a web server and of something that greets as an ssh server does."""
    web = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    ssh = socket.create_server(("127.0.0.1", 0))

    def greet():
        while True:
            try:
                with ssh.accept()[0] as connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            except OSError:
                return

    threading.Thread(target=web.serve_forever, daemon=True).start()
    threading.Thread(target=greet, daemon=True).start()
    yield {"web": web.server_port, "ssh": ssh.getsockname()[1]}
    web.shutdown()
    web.server_close()
    ssh.close()


BAD_ADDRESSES = {
    "tcp://127.0.0.1:{nothing}": "nothing is listening on tcp://127.0.0.1:.*: start `dask scheduler`",
    "tcp://no-such-host.invalid:8786": "cannot find the host of tcp://no-such-host.invalid:8786",
    "tcp://127.0.0.1:port": "not the address of a scheduler: tcp://HOST:PORT",
    "tcp://127.0.0.1:{web}": "no scheduler answers at tcp://127.0.0.1:.* within . s: .*another program has this port",
    "tcp://127.0.0.1:{ssh}": "no scheduler answers at tcp://127.0.0.1:.* within . s: .*another program has this port",
    "{worker}": "is a worker: give the address that `dask scheduler` prints",
}


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_a_bad_address_is_told_within_seconds(dask, strangers, monkeypatch, address):
    monkeypatch.setattr(scheduler, "ANSWER_SECONDS", 0.5)
    with dask.client() as client:
        worker = next(iter(client.scheduler_info()["workers"]))
    given = address.format(nothing=free_port(), worker=worker, **strangers)
    before = threading.active_count()
    with (
        pytest.raises(md.ClusterError, match=BAD_ADDRESSES[address]),
        clusters.connect(load_cluster(given)),
    ):
        pass
    assert threading.active_count() <= before


def test_a_scheduler_that_hangs_is_told_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "ANSWER_SECONDS", 0.5)
    with Processes(tmp_path, workers=0) as dask:
        address = dask.address
        dask.scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(md.ClusterError, match="or it hangs"), clusters.connect(load_cluster(address)):
            pass


FILES = {
    "missing": (None, "is not a scheduler file .*No such file"),
    "empty": ("", "is not a scheduler file"),
    "not JSON": ("tcp://127.0.0.1:8786", "is not a scheduler file"),
    "another's": ('{"name": "package"}', "is not a scheduler file"),
    "stale": (
        '{"address": "tcp://127.0.0.1:%d"}',
        "nothing is listening on .* The address is that of .*scheduler.json",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_bad_scheduler_file_is_told(tmp_path, content, message):
    path = tmp_path / "scheduler.json"
    if content is not None:
        path.write_text(content % free_port() if "%d" in content else content)
    with pytest.raises(md.ClusterError, match=message), clusters.connect(load_cluster(str(path))):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "tcp://nosuch.invalid:{port}"])
@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_dead_scheduler_gets_no_store_and_no_job(tmp_path, monkeypatch, command, address):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG))
    words = command, "run.yaml", "--out", "a.zarr", "--cluster", address.format(port=free_port())
    said = CliRunner().invoke(cli, words, prog_name="mandeldask")
    assert (said.exit_code, said.stderr.count("mandeldask: ")) == (5, 1), said.stderr
    assert "  job  " not in said.stderr
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "[::1"])
@pytest.mark.parametrize("command", [["run", "lesson"], ["submit", "lesson"], ["status", "job"], ["explore", "lesson"]])
def test_a_host_that_no_look_up_can_find_is_told_before_anything_starts(tmp_path, monkeypatch, command, host):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mandeldask.explorer.serve", lambda *_: pytest.fail("it is served"))
    said = CliRunner().invoke(cli, [*command, "--cluster", f"tcp://{host}:8786"], prog_name="mandeldask")
    assert (said.exit_code, len(said.output.splitlines())) == (2, 1), said.output
    assert "must be that of a scheduler, tcp://HOST:PORT or tls://HOST:PORT" in said.output


def test_dasks_setting_may_leave_out_the_protocol_and_is_named_where_it_is_wrong():
    with dask_config.set({"scheduler-address": "127.0.0.1:8786"}):
        assert clusters.resolve(None).address == "tcp://127.0.0.1:8786"
    with (
        dask_config.set({"scheduler-address": "http://127.0.0.1:8787"}),
        pytest.raises(md.ConfigError, match=r"Dask's setting scheduler-address.*must be that of a scheduler"),
    ):
        clusters.resolve(None)
    assert clusters.resolve(None) == LocalCluster()


def test_a_scheduler_without_workers_is_waited_for_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "FIRST_LINE_SECONDS", 0.3)
    said = []
    with Processes(tmp_path, workers=0) as dask:
        described = load_cluster({"kind": "address", "address": dask.address, "start_timeout": 2})
        with pytest.raises(
            md.ClusterError, match=f"no worker came up within 2 s: start some with `dask worker {dask.address}`"
        ):
            md.run(CONFIG, tmp_path / "a.zarr", cluster=described, tell=lambda e: said.append(getattr(e, "text", "")))
    assert any("no worker yet after" in text for text in said)


def test_a_lost_scheduler_ends_a_run_with_a_message(tmp_path):
    with Processes(tmp_path) as dask:
        config = CONFIG | {"kernel": "numpy", "max_iter": 10**6, "view": CONFIG["view"] | {"shape": [2000, 2400]}}
        seen = threading.Event()

        def tell(event):
            if type(event).__name__ == "Started":
                threading.Thread(target=kill).start()

        def kill():
            with dask.client() as client:
                poll(lambda: any(client.processing().values()), "work on the workers")
            dask.scheduler.kill()
            seen.set()

        with pytest.raises(md.ClusterError, match="the cluster was lost"):
            md.run(config | {"tile": [500, 600]}, tmp_path / "a.zarr", cluster=dask.address, tell=tell)
        assert seen.is_set()


# What is looked at before work is sent


def test_mandeldask_missing_stops_a_run_before_anything_is_written(bare, tmp_path):
    said = []
    with pytest.raises(
        md.ClusterError, match=r"mandeldask is missing on the scheduler, missing on 2 workers: .* --upload"
    ):
        md.run(CONFIG, tmp_path / "a.zarr", cluster=bare.address, tell=lambda e: said.append(getattr(e, "text", "")))
    assert any(text.split() == ["mandeldask", md.__version__, "missing", "missing"] for text in said)
    assert not (tmp_path / "a.zarr").exists()


def test_a_session_compares_versions_before_it_gives_a_size(bare):
    with (
        clusters.Session(bare.address) as session,
        pytest.raises(md.ClusterError, match="mandeldask is missing"),
    ):
        session.size  # noqa: B018 (to ask for it is the test)


def test_verify_compares_the_versions_of_a_users_client(bare, tmp_path):
    open_for_writing(tmp_path / "a.zarr", Description.of(md.View((0, 1), (0, 1), (4, 4)), 9, ("escape_time",), (2, 2)))
    with bare.client() as client, pytest.raises(md.ClusterError, match="mandeldask is missing"):
        md.verify(tmp_path / "a.zarr", client=client)


def test_mandeldask_missing_is_told_by_info_and_by_the_dashboard_page(bare, tmp_path):
    code, out, err = call("info", "--cluster", bare.address, cwd=tmp_path)
    assert (code, out) == (5, "")
    assert "mandeldask is missing on the scheduler, missing on 2 workers" in err
    assert "--upload" in err
    with bare.client() as client:
        assert "cannot load mandeldask.dashboard (ModuleNotFoundError" in dashboard.install(client)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_upload_sends_it_to_all_and_to_workers_that_come_later(bare, tmp_path, whole, kernel):
    described = ["--cluster", bare.address, "--set", f"kernel={kernel}", "--no-image"]
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG))
    for name in ("a.zarr", "b.zarr") if kernel == "numpy" else ("a.zarr",):  # what was sent may be sent again
        code, _, err = call("run", "run.yaml", "--out", name, "--upload", *described, cwd=tmp_path)
        assert code == 0, err
        assert open_store(tmp_path / name).checksum() == whole
    if kernel == "numba":  # each process compiles it for itself: once is enough here
        return
    bare.start_worker("--no-nanny")
    bare.wait()
    summary = md.run(CONFIG | {"kernel": kernel}, tmp_path / "c.zarr", cluster=bare.address)
    assert (summary.computed, summary.failed) == (TILES, 0)


def test_a_submitted_driver_needs_no_more_than_its_workers(bare, tmp_path, whole):
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG | {"kernel": "numpy"}))
    words = ["run.yaml", "--out", tmp_path / "a.zarr", "--name", "sent", "--upload"]
    code, _, err = call("submit", *words, "--cluster", bare.address, cwd=tmp_path)
    assert code == 0, err
    code, out, err = call("wait", "sent", "--cluster", bare.address, cwd=tmp_path)
    assert code == 0, out + err
    assert open_store(tmp_path / "a.zarr").checksum() == whole


def test_a_package_that_is_missing_for_what_was_sent_is_named(bare, tmp_path):
    code, out, err = call("info", "--cluster", bare.address, "--upload", cwd=tmp_path)
    assert (code, out) == (5, "")
    assert re.search(
        r"No module named 'threadpoolctl', on the scheduler and [23] more: install threadpoolctl there", err
    )


def test_another_version_is_named_and_replaced_by_upload(tmp_path, whole):
    shutil.copytree(ROOT / "mandeldask", tmp_path / "other/mandeldask", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "other/mandeldask/__init__.py"
    package.write_text(package.read_text().replace(f'"{md.__version__}"', '"0.0.1"'))
    with Processes(tmp_path / "dask", workers=1) as dask:
        dask.start_worker("--no-nanny", env=os.environ | {"PYTHONPATH": str(tmp_path / "other")})
        dask.wait()
        with pytest.raises(md.ClusterError, match=r"mandeldask is 0\.0\.1 on (another )?1 worker: install"):
            md.run(CONFIG, tmp_path / "a.zarr", cluster=dask.address)
        md.run(CONFIG | {"kernel": "numpy"}, tmp_path / "a.zarr", cluster=dask.address, upload=True)
    assert open_store(tmp_path / "a.zarr").checksum() == whole


def test_the_oldest_packages_of_a_cluster_are_those_that_are_required_here():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = dict(re.findall(r"^([a-z]+)(?:\[array\])?>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE))
    assert {name: version for name, version in preflight.OLDEST.items() if name in required} == {
        name: required[name] for name in ("dask", "distributed", "numpy", "numba", "zarr")
    }


def columns(**workers):
    here = dict.fromkeys(preflight.OLDEST, "2026.8.0") | {"mandeldask": md.__version__, "numba": "0.68.1"}
    return {"client": here, "scheduler": here, "3 workers": here | workers}


@pytest.mark.parametrize(
    ("workers", "kernel", "message"),
    [
        ({"numba": "missing"}, "numba", "numba is missing on 3 workers: .* take the kernel numpy-compact"),
        ({"dask": "2024.12.1"}, "numpy", r"dask is 2024\.12\.1 on 3 workers: install dask 2025\.7 or newer"),
        ({"zarr": "2.18.4"}, "numpy", r"zarr is 2\.18\.4"),
        ({"numba": "missing"}, "numpy", None),
        ({"python": "3.14.0rc1", "dask": "2026.9.1.dev3+g12"}, "numpy", None),
    ],
)
def test_only_differences_that_break_a_run_stop_it(monkeypatch, workers, kernel, message):
    monkeypatch.setattr(preflight, "versions", lambda client: columns(**workers))
    monkeypatch.setattr(preflight, "_ask", lambda *asked, **options: {})
    said = []
    if message is None:
        preflight.check(None, kernel, say=said.append)
    else:
        with pytest.raises(md.ClusterError, match=message):
            preflight.check(None, kernel, say=said.append)
    assert len(said) == 1 + len(workers)
    assert len({text.index(v) for text in said for v in ("3 workers", *workers.values()) if v in text}) == 1


def test_a_store_that_one_worker_does_not_see_is_caught(tmp_path):
    """A worker in a mount namespace of its own, with an empty file system over the folder."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], check=False, capture_output=True).returncode:
        skip_or_fail("a mount namespace needs unshare and root")
    with Processes(tmp_path / "dask", workers=1) as dask:
        dask.start_worker("--no-nanny", before=mount)
        dask.wait()
        with pytest.raises(md.ClusterError, match=r"1 of 2 workers cannot use the store: tcp://.*no store at"):
            md.run(CONFIG, hidden / "a.zarr", cluster=dask.address)
        assert not open_store(hidden / "a.zarr").done().any()


def test_workers_leave_nothing_in_the_store_and_know_another_one(dask, tmp_path):
    md.run(CONFIG, tmp_path / "a.zarr", cluster=dask.address)
    store = open_store(tmp_path / "a.zarr")
    before = sorted(path.name for path in Path(store.path).iterdir())
    with clusters.Session(dask.address) as session:
        session.check_store(store)
        with pytest.raises(md.ClusterError, match=r"2 of 2 workers cannot use the store: .*another store is there"):
            session.check_store(replace(store, identity="0" * 32))
    assert sorted(path.name for path in Path(store.path).iterdir()) == before


# Any cluster class


def test_a_cluster_class_computes_the_same(tmp_path, whole):
    arguments = {"n_workers": 0, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    described = {"kind": "class", "type": "distributed.LocalCluster", "arguments": arguments, "workers": 1}
    said = []
    md.run(
        CONFIG, tmp_path / "a.zarr", cluster=described, tell=lambda e: said.append(e) if isinstance(e, Notice) else 0
    )
    assert said[0].text == "distributed.LocalCluster"
    assert open_store(tmp_path / "a.zarr").checksum() == whole


BAD_CLASSES = {
    "no package": ({"type": "no_such_package.Cluster"}, "cannot start no_such_package.Cluster, .*No module"),
    "no class": ({"type": "distributed.NoCluster"}, "cannot start distributed.NoCluster, .*NoCluster"),
    "another class": ({"type": "distributed.Lock"}, "has to be a class of Dask clusters"),
    "a function": ({"type": "distributed.wait"}, "has to be a class of Dask clusters"),
    "a wrong argument": (
        {"type": "distributed.SpecCluster", "arguments": {"n_wrokers": 1}},
        "cannot start distributed.SpecCluster.*n_wrokers",
    ),
    "a host that is not there": (
        {"type": "distributed.LocalCluster", "arguments": {"host": "no-such-host.invalid", "n_workers": 0}},
        "cannot start distributed.LocalCluster",
    ),
}


@pytest.mark.parametrize(("described", "message"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_a_class_that_cannot_be_started_is_told(described, message):
    with pytest.raises(md.ClusterError, match=message), clusters.connect(load_cluster({"kind": "class", **described})):
        pass


# The session


def test_a_session_starts_nothing_before_it_is_needed_and_ends_what_it_started():
    with clusters.Session({"kind": "local", "workers": 1, "memory_limit": "1GiB"}) as session:
        assert session.size == clusters.Size(1, 1, 2**30)
        client = session.ready()
        assert session.ready() is session.connect() is client
    assert client.status == "closed"


def test_a_session_says_which_cluster_it_is_and_asks_it_for_its_size(dask):
    said = []
    with clusters.Session(dask.address, say=said.append) as session:
        assert (session.runs_already, session.planned_size) == (True, None)
        assert session.size == clusters.Size(2, 1, 2**31)
    assert said == [f"the scheduler at {dask.address}"]
    with dask.client() as client:
        assert len(client.nthreads()) == 2


def test_a_session_with_a_users_client_looks_at_no_description_and_ends_nothing(dask):
    with dask.client() as client:
        with clusters.Session("no such file", client=client) as session:
            assert session.description is None
            assert session.ready() is client
        assert client.status == "running"


def test_of_unequal_workers_the_one_with_the_least_memory_a_thread_speaks_for_all(monkeypatch):
    found = {"a": {"nthreads": 16, "memory_limit": 2**36}, "b": {"nthreads": 4, "memory_limit": 2**32}}
    monkeypatch.setattr(workers, "workers_of", lambda client: found)
    size = clusters.size_of_client(None)
    assert (size.workers, size.threads, size.threads_per_worker, size.memory_limit) == (2, 20, 4, 2**32)
    worst = "the one with the least memory a thread has 4 threads and 4.00 GiB"
    assert str(size) == f"2 workers of 20 threads together; {worst}"
    starting = SimpleNamespace(cluster=SimpleNamespace(plan={"a", "b", "c"}))
    assert clusters.size_of_client(starting).workers == 2, "of others nothing is known"
    found["a"]["nthreads"] = 4
    assert worst in str(clusters.size_of_client(None)), "workers with other memory are not alike"
    found["a"]["memory_limit"] = 2**32
    assert clusters.size_of_client(starting) == clusters.Size(3, 4, 2**32), "a cluster that is still starting"


def test_a_worker_that_is_lost_while_it_is_asked_is_passed_over():
    class Client:
        def run(self, function, on_error, callback_timeout):
            return {"tcp://a": CommClosedError("gone"), "tcp://b": "2.0", "tcp://c": ImportError("none here")}

    answers = preflight._ask(Client(), str)
    assert list(answers) == ["tcp://b", "tcp://c"]


# Descriptions


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/clusters/*.yaml")), ids=lambda path: path.stem)
def test_every_description_we_ship_loads_and_says_what_it_is(path):
    first, _, comment = path.read_text().split("\n")[:3]
    assert first == "# yaml-language-server: $schema=schema.json"
    assert comment.startswith("# ")
    described = load_cluster(str(path))
    assert described.introduction


def test_the_schema_of_descriptions_is_current():
    assert json.loads((ROOT / "configs/clusters/schema.json").read_text()) == json_schema("cluster")


def test_a_local_run_listens_on_loopback_only():
    with clusters.connect(LocalCluster(workers=1, memory_limit="1GiB")) as client:
        workers.wait_for_worker(client)
        found = listening([os.getpid(), *client.run(os.getpid).values()])
    assert len(found) >= 3
    assert set(found) == {"127.0.0.1"}


CLASS_FILE = """
kind: class
type: distributed.LocalCluster
arguments:
  n_workers: 1
  threads_per_worker: 1
  host: 127.0.0.1
  dashboard_address: null
  death_timeout: 30.5
  worker_kwargs: {lifetime: 3600, resources: {tiles: 2.5}}
  interfaces: [1, 2e2, -3]
"""


def test_numbers_of_a_file_reach_another_program_as_python_has_them(tmp_path):
    """YAML's numbers keep their digits for the view; a class or a batch system takes int and float."""
    (tmp_path / "cluster.yaml").write_text(CLASS_FILE)
    (tmp_path / "queue.yaml").write_text("{kind: slurm, cores: 1, memory: 1GiB, options: {job_cpu: 2, asked: [1.5]}}")
    arguments = load_cluster(tmp_path / "cluster.yaml").arguments
    assert json.dumps(arguments, sort_keys=True) == json.dumps(
        {
            "n_workers": 1,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            "dashboard_address": None,
            "death_timeout": 30.5,
            "worker_kwargs": {"lifetime": 3600, "resources": {"tiles": 2.5}},
            "interfaces": [1, 200.0, -3],
        },
        sort_keys=True,
    )
    assert json.dumps(load_cluster(tmp_path / "queue.yaml").options) == '{"job_cpu": 2, "asked": [1.5]}'


def test_a_class_is_started_with_the_numbers_of_a_file(tmp_path):
    (tmp_path / "cluster.yaml").write_text("\n".join(CLASS_FILE.splitlines()[:8]))
    with clusters.connect(load_cluster(tmp_path / "cluster.yaml")) as client:
        client.wait_for_workers(1, timeout=60)
        assert client.submit(lambda: 6 * 7).result() == 42
