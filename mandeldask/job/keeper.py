"""A process in the background that keeps a cluster for submitted jobs, and ends it a while after the last.

A local cluster and that of a batch system live as long as the process that started them: `submit` is to return, so
another one has to stay.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.config import Cluster, SchedulerAddress, SchedulerFile
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.job.ask import status_of_jobs
from mandeldask.job.ledger import reserve
from mandeldask.store import open_store

START_SECONDS = 60
LINGER_SECONDS = 60  # after the last job has ended, for those who wait for it
UNUSED_SECONDS = 120  # without any job
POLL_SECONDS = 2.0
PROGRAM = "import sys; from mandeldask.job.keeper import main; main(sys.argv[1])"
DESCRIPTION, SCHEDULER, FAILURE, LOG = "cluster.json", "scheduler.json", "failure.json", "log.txt"


def kept(cluster: Cluster) -> SchedulerAddress | SchedulerFile:
    """A running cluster as it is; one that has to be started, started and kept by a process of its own.

    Raises
    ------
    ClusterError
        It could not be started: why.
    """
    if isinstance(cluster, SchedulerAddress | SchedulerFile):
        return cluster
    folder = Path(tempfile.mkdtemp(prefix="mandeldask-cluster-"))
    (folder / DESCRIPTION).write_text(cluster.model_dump_json())
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from mandeldask.job.keeper import main; main(sys.argv[1])",
                str(folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (folder / SCHEDULER).exists():
            return SchedulerFile.model_validate({"kind": "scheduler-file", "path": str(folder / SCHEDULER)})
        if (folder / FAILURE).exists():
            raise ClusterError(json.loads((folder / FAILURE).read_text()))
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.terminate()
    raise ClusterError(f"the cluster did not start within {START_SECONDS} s; what was said is in {folder / LOG}")


def main(name: str) -> None:
    """Keep the cluster that a folder describes while it has jobs; the folder goes when the cluster has."""
    folder = Path(name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cluster = configs.load_cluster(json.loads((folder / DESCRIPTION).read_text()))
        with clusters.connect(cluster) as client:
            part = folder / f"{SCHEDULER}.part"
            client.write_scheduler_file(str(part))
            os.rename(part, folder / SCHEDULER)
            try:
                _stay(client)
            finally:
                shutil.rmtree(folder)
    except MandeldaskError as error:
        (folder / FAILURE).write_text(json.dumps(str(error)))
        raise SystemExit(error.exit_code) from None


def _stay(client: Client) -> None:
    """Until all jobs have ended, and a while more."""
    idle = time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        jobs = status_of_jobs(client)
        for job in jobs:
            if job.state == "waiting" and job.job:  # in a batch system's queue that may take hours
                with suppress(MandeldaskError, OSError):
                    reserve(open_store(job.store), job.job)
        if any(not job.ended for job in jobs):
            idle = time.monotonic()
        elif time.monotonic() - idle > (LINGER_SECONDS if jobs else UNUSED_SECONDS):
            return
