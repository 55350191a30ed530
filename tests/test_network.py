"""Three hosts in network namespaces: a scheduler and two workers, and a link that breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import skip_or_fail
from faults import counted, held
from services import ENV, poll

import mandeldask as md
from mandeldask.store import open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [64, 64]}, "max_iter": 50, "tile": [8, 8], "kernel": "slow"}
TILES = 64
PORT = 8786
# Dask's own settings notice a cut after half a minute and more, with these it is a quarter
TIMEOUTS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
}
COMMAND = "import preloaded, sys; preloaded.install(sys.argv.pop(1)); from mandeldask.cli import main; main()"


class Hosts:
    """Namespaces 0 (scheduler and client), 1 and 2 (workers) at 10.77.0.1 to 3, behind a switch of their own."""

    def __init__(self, folder):
        if os.geteuid() != 0 or not shutil.which("ip"):
            skip_or_fail("needs root and iproute2, to make network namespaces")
        self.name = f"md{os.getpid()}"
        self.folder, self.processes = Path(folder), []
        self.counted = self.folder / "counted"
        self.env = ENV | TIMEOUTS | {"COUNTED": str(self.counted)}

    def __enter__(self):
        try:
            self.ip("netns", "add", self.switch)
        except subprocess.CalledProcessError as error:
            skip_or_fail(f"cannot make network namespaces: {error.stderr}")
        self.ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        self.ip("-n", self.switch, "link", "set", "switch", "up")
        for n in range(3):
            host = f"{self.name}{n}"
            self.ip("netns", "add", host)
            self.ip("link", "add", f"eth{n}", "netns", host, "type", "veth", "peer", f"port{n}", "netns", self.switch)
            self.ip("-n", self.switch, "link", "set", f"port{n}", "master", "switch", "up")
            self.ip("-n", host, "link", "set", "lo", "up")
            self.ip("-n", host, "link", "set", f"eth{n}", "up")
            self.ip("-n", host, "addr", "add", f"10.77.0.{n + 1}/24", "dev", f"eth{n}")
        self.start(0, "distributed.cli.dask_scheduler", "--host", "10.77.0.1", "--port", PORT, "--no-dashboard")
        for n in (1, 2):
            self.start(
                n,
                "distributed.cli.dask_worker",
                *[self.address, "--host", f"10.77.0.{n + 1}", "--nthreads", "1", "--no-nanny", "--no-dashboard"],
                *["--local-directory", self.folder / f"spill{n}", "--preload", "preloaded", "--memory-limit", "2GiB"],
            )
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()
        for name in (self.switch, *(f"{self.name}{n}" for n in range(3))):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @property
    def switch(self):
        return f"{self.name}sw"

    @property
    def address(self):
        return f"tcp://10.77.0.1:{PORT}"

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def link(self, n, state):
        """Set the link of a host up or down, at the switch: the host itself notices nothing."""
        self.ip("-n", self.switch, "link", "set", f"port{n}", state)

    def start(self, n, module, *words):
        with open(self.folder / f"host{n}.log", "ab") as log:
            command = ["ip", "netns", "exec", f"{self.name}{n}", sys.executable, "-m", module, *map(str, words)]
            self.processes.append(
                subprocess.Popen(
                    command, env=self.env, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            )

    def mandeldask(self, *words):
        """Run a command on the scheduler's host."""
        result = subprocess.run(
            ["ip", "netns", "exec", f"{self.name}0", sys.executable, "-c", COMMAND, self.counted, *map(str, words)],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert "Traceback" not in result.stderr
        return result

    def driver(self, name):
        """The number of the host that the job's driver lives on."""
        lines = json.loads(self.mandeldask("logs", name, "--cluster", self.address, "--json").stdout)
        homes = [line["text"] for line in lines if line["text"].startswith("the driver runs on")]
        return int(homes[-1].split("10.77.0.")[1].split(":")[0]) - 1


@pytest.fixture
def hosts(tmp_path):
    with Hosts(tmp_path) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    md.run({**UNIT, "kernel": "numpy"}, folder / "a.zarr", client=client)
    return open_store(folder / "a.zarr").checksum()


def submit(hosts, name):
    """Submit a job and give the host of its driver; until that is known, only the first tiles are computed."""
    (hosts.folder / "unit.yaml").write_text(json.dumps({**UNIT, "store": "unit.zarr"}))
    with held(hosts.counted, after=TILES // 10):
        sent = hosts.mandeldask("submit", "unit.yaml", "--cluster", hosts.address, "--name", name)
        assert sent.returncode == 0, sent.stderr
        poll(lambda: len(counted(hosts.counted)) > TILES // 10, "the first tiles")
        return hosts.driver(name)


def end(hosts, name, expected):
    waited = hosts.mandeldask("wait", name, "--cluster", hosts.address, "--json", "--timeout", "150")
    status = json.loads(waited.stdout)
    assert (status["state"], status["done"], status["failed"]) == ("finished", TILES, 0), waited.stderr
    assert open_store(hosts.folder / "unit.zarr").checksum() == expected


@pytest.mark.parametrize("which", ["the driver's", "the other"])
def test_a_host_that_is_cut_off_for_ever_costs_a_few_tiles(hosts, expected, which):
    driver = submit(hosts, "cut")
    hosts.link(driver if which == "the driver's" else 3 - driver, "down")
    end(hosts, "cut", expected)
    # what was under way on either worker, when the driver was lost, and what the cut host went on with
    assert TILES <= len(counted(hosts.counted)) <= TILES + 4


def test_a_link_that_is_back_after_five_seconds_costs_next_to_nothing(hosts, expected):
    driver = submit(hosts, "blink")
    hosts.link(driver, "down")
    subprocess.run(["sleep", "5"], check=True)  # the fault itself
    hosts.link(driver, "up")
    end(hosts, "blink", expected)
    assert TILES <= len(counted(hosts.counted)) <= TILES + 4
