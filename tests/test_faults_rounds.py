"""kill -9 and SIGSTOP of any process at random moments: resumed, the field is that of an undisturbed run.

MANDELDASK_ROUNDS=50 MANDELDASK_SEED=100 scripts/test tests/test_faults_rounds.py -k undisturbed_one -s
MANDELDASK_MINUTES=30 MANDELDASK_SIDE=317 scripts/test tests/test_faults_rounds.py -k soak -s

The first plays 50 rounds with the seeds from 100 on, and tells what happened in each. A seed decides what is struck and
after how many tiles; what a process is at in that moment is another each time. The second strikes a run of 317 x 317
small tiles again and again for half an hour, and prints what scheduler and client take meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache

import psutil
import pytest
from faults import counted
from services import ENV, Processes, poll

import mandeldask as md
from mandeldask.job import lease
from mandeldask.job.cost import BATCH
from mandeldask.job.dispatcher import MIN_IN_FLIGHT
from mandeldask.job.periodic import every
from mandeldask.store import open_store

ROUNDS = int(os.environ.get("MANDELDASK_ROUNDS", "5"))
SEED = int(os.environ.get("MANDELDASK_SEED", "0"))
MINUTES = float(os.environ.get("MANDELDASK_MINUTES", "0.25"))
SIDE = int(os.environ.get("MANDELDASK_SIDE", "32"))  # tiles of the soak's field in each direction
UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [96, 96]}, "max_iter": 50, "tile": [12, 12], "kernel": "counted"}
BRIEF = {**UNIT, "view": UNIT["view"] | {"shape": [8 * SIDE, 8 * SIDE]}, "tile": [8, 8], "kernel": "brief"}
WORKERS = 2
# A worker computes a tile and holds another ready, and a driver may have begun one that its successor asks for again.
AT_MOST_TWICE = 2 * WORKERS + 1
# Of brief tiles a worker has computed some more that the driver has not heard of; all of them are in flight there.
AT_MOST_IN_FLIGHT = MIN_IN_FLIGHT + BATCH
VICTIMS = ("worker", "nanny", "scheduler", "driver", "client")
STOPPED_SECONDS = 2
STALE_SECONDS = 15.0  # until a driver that shows its life every second is forgotten
ATTEMPTS = 6
PATIENCE = 240  # seconds
PRINT_SECONDS = 5.0
COMMAND = "import preloaded, sys; preloaded.install(sys.argv.pop(1)); from mandeldask.cli import main; main()"


class Arena:
    """A scheduler and two workers with their nannies, made whole again after each round."""

    def __init__(self, folder):
        self.folder, self.counted, self.dask, self.made = folder, folder / "counted", None, 0
        self.env = ENV | {"COUNTED": str(self.counted), "HEARTBEAT_SECONDS": "1", "STALE_SECONDS": str(STALE_SECONDS)}
        self.commands = []

    def make_whole(self):
        if self.dask is None or not self.lives:
            self.close()
            self.made += 1
            options = ("--preload", "preloaded")
            self.dask = Processes(self.folder / f"dask-{self.made}", WORKERS, options, env=self.env)
        for nanny in [n for n in self.dask.workers if n.poll() is not None]:
            self.dask.workers.remove(nanny)
            self.dask.start_worker("--preload", "preloaded")
        self.dask.wait()

    @property
    def lives(self):
        return self.dask.scheduler.poll() is None

    def close(self):
        for process in self.commands:
            process.kill()
            process.wait()
        self.commands.clear()
        if self.dask:
            self.dask.close()

    def start(self, *words):
        """A command of mandeldask on this cluster, in a process of its own."""
        command = [sys.executable, "-c", COMMAND, self.counted, *words, "--cluster", self.dask.address]
        with open(self.folder / "commands.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command], env=self.env, cwd=self.folder, stdout=log, stderr=log
            )
        self.commands.append(process)
        return process


class Round:
    """A run or a submitted job on an arena, struck now and then; where it has ended too early, it is resumed."""

    def __init__(self, arena, folder, chance, unit, name=None):
        arena.counted.unlink(missing_ok=True)
        arena.make_whole()
        self.arena, self.chance, self.path, self.name, self.unit = arena, chance, folder / "a.zarr", name, unit
        (folder / "unit.yaml").write_text(json.dumps({**unit, "store": str(self.path)}))
        how = ["submit", "--name", name] if name else ["run", "--no-image"]
        self.command = arena.start(*how, folder / "unit.yaml")
        self.story, self.resumed = [], 0

    @property
    def computed(self):
        return len(counted(self.arena.counted))

    def over(self):
        """Whether there is nothing left to strike."""
        if not self.arena.lives:
            return True
        ended = self.command.poll() is not None
        return ended and (not self.name or (self.path.exists() and md.status(self.path).state == "finished"))

    def strike(self, within):
        """Strike some process within so many tiles; whether there was still one."""
        moment = self.computed + self.chance.randrange(1, within)
        victim, number = self.chance.choice(VICTIMS), self.chance.choice([signal.SIGKILL] * 2 + [signal.SIGSTOP])
        poll(lambda: self.computed >= moment or self.over(), "the moment to strike", PATIENCE)
        if self.over():
            return False
        self.story.append(f"{number.name} to the {victim} after {self.computed} tiles")
        pid = self.find(victim)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(STOPPED_SECONDS)  # the fault itself
                os.kill(pid, signal.SIGCONT)
        if (victim, number) == ("scheduler", signal.SIGKILL):
            self.arena.dask.scheduler.wait()
        return True

    def find(self, victim):
        """The process id of the victim; that of a driver is the command's where it drives, else its worker's."""
        dask = self.arena.dask
        match victim:
            case "worker":
                return psutil.Process(dask.workers[0].pid).children()[-1].pid
            case "nanny":
                return dask.workers[-1].pid
            case "scheduler":
                return dask.scheduler.pid
            case "driver" if self.name:
                with dask.client() as client:
                    said = [text for _, text in md.job(self.name, client=client).logs()]
                return int(re.search("process ([0-9]+)", next(t for t in said[::-1] if "driver runs on" in t))[1])
        return self.command.pid

    def settled(self):
        """Wait for the end of whatever is at work; whether the store is complete."""
        assert self.command.wait(PATIENCE) in (0, 3, 5, -signal.SIGKILL), self.log()
        if self.path.exists():  # a driver that lives somewhere else
            poll(lambda: md.status(self.path).ended or not self.arena.lives, "the driver's end", PATIENCE)
            return md.status(self.path).state == "finished"
        return False

    def go_on(self):
        self.arena.make_whole()
        # the lease of a submitted job that died with its scheduler holds for a while
        poll(lambda: not self.path.exists() or md.status(self.path).ended, "the end of the lease", PATIENCE)
        self.command, self.name = self.arena.start("resume", self.path, "--kernel", self.unit["kernel"]), None
        self.resumed += 1

    def finish(self):
        """Resume until the store is complete."""
        for _ in range(ATTEMPTS):
            if self.settled():
                return
            self.go_on()
        raise AssertionError(f"not complete after {ATTEMPTS} attempts: {self.log()}")

    def check(self, expected, at_most):
        """The samples of an undisturbed run, in every level; and few tiles were computed twice."""
        store = open_store(self.path)
        tiles, story = store.done().size, "; ".join(self.story)
        sys.stdout.write(f"{story}; resumed {self.resumed} times, {self.computed} tiles computed for {tiles}\n")
        assert store.checksum() == expected
        field = store.escape_time[:]
        for level in store.description.levels:
            assert store.done(level.number).all()
            k = level.stride
            assert (store.window(slice(None), slice(None), level.number) == field[::k, ::k]).all()
        assert tiles <= self.computed <= tiles + at_most * max(1, len(self.story))

    def log(self):
        return (self.arena.folder / "commands.log").read_text()


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    arena = Arena(tmp_path_factory.mktemp("arena"))
    yield arena
    arena.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lease, "STALE_SECONDS", STALE_SECONDS)


@pytest.fixture(scope="module")
def undisturbed(client, tmp_path_factory):
    """The checksum of a square field of so many samples a side; it does not depend on tiles."""

    @cache
    def checksum(side):
        path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
        unit = UNIT | {"view": UNIT["view"] | {"shape": [side, side]}, "kernel": "numpy", "tile": [1024, 1024]}
        md.run(unit, path, client=client)
        return open_store(path).checksum()

    return checksum


@pytest.mark.timeout(600)  # a round takes 10 s on a quiet machine, two minutes on a crowded one
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_a_run_that_is_struck_at_random_and_resumed_ends_as_an_undisturbed_one(
    arena, tmp_path, undisturbed, impatient, seed
):
    chance = random.Random(seed)
    name = chance.choice([None, f"round-{seed}"])
    played = Round(arena, tmp_path, chance, UNIT, name)
    for _ in range(chance.choice([1, 1, 2])):
        if not played.strike(within=32):
            break
    played.finish()
    sys.stdout.write(f"\nseed {seed}, {'submit' if name else 'run'}: ")
    played.check(undisturbed(96), AT_MOST_TWICE)


@pytest.mark.timeout(600 + 120 * MINUTES)
def test_a_soak_of_faults_leaves_the_field_of_an_undisturbed_run(arena, tmp_path, undisturbed, impatient):
    played = Round(arena, tmp_path, random.Random(SEED), BRIEF)
    poll(lambda: played.computed, "a tile in work", PATIENCE)
    begun = time.monotonic()

    def tell():
        lines = counted(arena.counted)
        told = [f"{time.monotonic() - begun:.0f} s, {len(played.story)} faults", f"{len(lines)} tiles computed"]
        told.append(f"{len(lines) - len(set(lines))} of them again")
        for name, process in (("scheduler", arena.dask.scheduler), ("client", played.command)):
            with suppress(psutil.Error):  # one that has been struck
                seen = psutil.Process(process.pid)
                told.append(f"{name} {seen.num_fds()} files and {seen.memory_info().rss / 2**20:.0f} MiB")
        sys.stdout.write("; ".join(told) + "\n")

    with every(PRINT_SECONDS, tell, "soak"):
        while time.monotonic() < begun + 60 * MINUTES:
            if played.strike(within=max(64, SIDE**2 // 8)):
                if arena.lives:
                    arena.make_whole()
            elif played.settled():
                break
            else:
                played.go_on()
        played.finish()
    played.check(undisturbed(8 * SIDE), AT_MOST_IN_FLIGHT)
