"""A process in the background that keeps a cluster for submitted jobs, and ends it a while after the last.

A local cluster, and that of a batch system, ends with the process that started it. `submit` returns at once, so another
process has to stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.cluster.workers import jobs_of, raise_if_none_will_come
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.job.job_status import SPACE, give_up, status_of_jobs
from mandeldask.job.lease import reserve
from mandeldask.store import open_store

SPAWN_SECONDS = 60  # for the process to import what it needs, beside the start_timeout of its cluster
LINGER_SECONDS = 60  # after the last job has ended, for those who wait for it
UNUSED_SECONDS = 120  # without any job
LOOK_SECONDS = 2.0  # between two looks at the jobs
REFUSAL_SECONDS = 3.0  # in which a batch system refuses, if it does
PROGRAM = "import sys; from mandeldask.job.background import main; main(sys.argv[1])"
PREFIX = "mandeldask-cluster-"  # of the folders
DESCRIPTION, SCHEDULER, FAILURE, LOG = "cluster.json", "scheduler.json", "failure.json", "log.txt"


@contextmanager
def kept_cluster(cluster: configs.Cluster) -> Iterator[Client]:
    """A client of a cluster that outlives this process: of one that runs already, or one kept in the background.

    The process that keeps it goes on when the context ends well; an error in the context ends the cluster. ClusterError
    says why it could not be started.
    """
    if isinstance(cluster, configs.RunningScheduler):
        with clusters.connect(cluster) as client:
            yield client
        return
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / DESCRIPTION).write_text(cluster.model_dump_json())
    with open(folder / LOG, "wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # held while a process of the cluster writes there
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, folder, SPAWN_SECONDS + cluster.start_timeout)
        with clusters.connect(configs.load_cluster(str(folder / SCHEDULER))) as client:
            yield client
    except BaseException:
        process.terminate()
        raise


def _sweep() -> None:
    """Remove the folders of clusters that were up and whose processes were all killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and (folder / SCHEDULER).exists():
                with open(folder / LOG, "rb") as log:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)


def _wait_until_up(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (folder / SCHEDULER).exists():
            return
        if process.poll() is not None:
            _raise_failure(folder)
            raise ClusterError(
                f"the process that was to keep the cluster ended with exit code {process.returncode}: "
                f"its output is in {folder / LOG}"
            )
        time.sleep(0.05)
    _raise_failure(folder)
    raise ClusterError(
        f"the cluster did not start within {seconds:.0f} s: set a longer start_timeout in its description, or see the "
        f"output of the process that was to keep it, in {folder / LOG}"
    )


def _raise_failure(folder: Path) -> None:
    """Raise what the process that was to keep the cluster left as its reason, if it left one."""
    if (folder / FAILURE).exists():
        why = json.loads((folder / FAILURE).read_text())
        shutil.rmtree(folder, ignore_errors=True)
        raise ClusterError(why)


def main(name: str) -> None:
    """Keep the cluster that a folder describes while it has jobs; the folder goes when the cluster has."""
    folder = Path(name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cluster = configs.load_cluster(json.loads((folder / DESCRIPTION).read_text()))
        with clusters.connect(cluster) as client:
            _refused_at_once(client)
            part = folder / f"{SCHEDULER}.part"
            client.write_scheduler_file(str(part))
            os.rename(part, folder / SCHEDULER)
            try:
                _stay(client, cluster)
            finally:
                shutil.rmtree(folder)
    except MandeldaskError as error:
        (folder / FAILURE).write_text(json.dumps(str(error)))
        raise SystemExit(error.exit_code) from None


def _refused_at_once(client: Client) -> None:
    """ClusterError where a batch system wants none of the jobs."""
    deadline = time.monotonic() + REFUSAL_SECONDS
    while (jobs := jobs_of(client)) and time.monotonic() < deadline:
        raise_if_none_will_come(client)
        if jobs.ids:
            return
        time.sleep(0.1)


def _stay(client: Client, cluster: configs.Cluster) -> None:
    """Until all jobs have ended, and a while more; jobs whose workers never come are ended after the start_timeout."""
    begun = idle = time.monotonic()
    timeout = cluster.start_timeout
    came = False
    while True:
        time.sleep(LOOK_SECONDS)
        came = came or bool(client.nthreads())
        jobs = status_of_jobs(client)
        waiting = [job for job in jobs if job.state == "waiting"]
        for job in waiting:  # in a batch system's queue that may take hours
            with suppress(MandeldaskError, OSError):
                reserve(open_store(job.store), str(job.job), client.get_metadata([SPACE, job.job, "run"]))
        if waiting and not came and time.monotonic() - begun > timeout:
            for job in waiting:
                give_up(client, str(job.job), f"no worker came up within {timeout:.0f} s (start_timeout)")
        if any(not job.ended for job in jobs):
            idle = time.monotonic()
        elif time.monotonic() - idle > (LINGER_SECONDS if jobs else UNUSED_SECONDS + timeout):
            return
