"""kill -9 and SIGSTOP of any process at random moments: resumed, the field is that of an undisturbed run.

MANDELDASK_ROUNDS=50 MANDELDASK_SEED=100 scripts/test tests/test_faults_rounds.py -s

plays 50 rounds with the seeds from 100 on, and tells what happened in each. A seed decides what is struck and after how
many tiles; what a process is at in that moment is another each time.
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

import psutil
import pytest
from faults import counted
from services import ENV, Processes, poll

import mandeldask as md
from mandeldask.job import lease
from mandeldask.store import open_store

ROUNDS = int(os.environ.get("MANDELDASK_ROUNDS", "5"))
SEED = int(os.environ.get("MANDELDASK_SEED", "0"))
UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [96, 96]}, "max_iter": 50, "tile": [12, 12], "kernel": "counted"}
TILES, WORKERS = 64, 2
# A worker computes a tile and holds another ready, and a driver may have begun one that its successor asks for again.
AT_MOST_TWICE = 2 * WORKERS + 1
VICTIMS = ("worker", "nanny", "scheduler", "driver", "client")
STOPPED_SECONDS = 2
STALE_SECONDS = 15.0  # until a driver that shows its life every second is forgotten
ATTEMPTS = 6
PATIENCE = 240  # seconds
COMMAND = "import preloaded, sys; preloaded.install(sys.argv.pop(1)); from mandeldask.cli import main; main()"


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "a.zarr"
    md.run({**UNIT, "kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


class Arena:
    """A scheduler and two workers with their nannies, made whole again after each round."""

    def __init__(self, folder):
        self.folder, self.counted, self.dask, self.made = folder, folder / "counted", None, 0
        self.env = ENV | {"COUNTED": str(self.counted), "HEARTBEAT_SECONDS": "1", "STALE_SECONDS": str(STALE_SECONDS)}
        self.commands = []

    def make_whole(self):
        if self.dask is None or self.dask.scheduler.poll() is not None:
            self.close()
            self.made += 1
            options = ("--preload", "preloaded")
            self.dask = Processes(self.folder / f"dask-{self.made}", WORKERS, options, env=self.env)
        for nanny in [n for n in self.dask.workers if n.poll() is not None]:
            self.dask.workers.remove(nanny)
            self.dask.start_worker("--preload", "preloaded")
        self.dask.wait()

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

    def find(self, victim, command, name):
        """The process id of the victim; that of a driver is the command's where it drives, else its worker's."""
        match victim:
            case "worker":
                return psutil.Process(self.dask.workers[0].pid).children()[-1].pid
            case "nanny":
                return self.dask.workers[-1].pid
            case "scheduler":
                return self.dask.scheduler.pid
            case "driver" if name:
                with self.dask.client() as client:
                    said = [
                        text for _, text in md.job(name, client=client).logs() if text.startswith("the driver runs on")
                    ]
                return int(re.search("process ([0-9]+)", said[-1])[1])
        return command.pid

    def strike(self, pid, number):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(STOPPED_SECONDS)  # the fault itself
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    arena = Arena(tmp_path_factory.mktemp("arena"))
    yield arena
    arena.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lease, "STALE_SECONDS", STALE_SECONDS)


@pytest.mark.timeout(600)  # a round takes 10 s on a quiet machine, two minutes on a crowded one
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_a_run_that_is_struck_at_random_and_resumed_ends_as_an_undisturbed_one(
    arena, tmp_path, expected, impatient, seed
):
    chance = random.Random(seed)
    arena.counted.unlink(missing_ok=True)
    arena.make_whole()
    path, name = tmp_path / "a.zarr", chance.choice([None, f"round-{seed}"])
    (tmp_path / "unit.yaml").write_text(json.dumps({**UNIT, "store": str(path)}))
    how = ["submit", "--name", name] if name else ["run", "--no-image"]
    command = arena.start(*how, tmp_path / "unit.yaml")
    story = []

    def over():
        return command.poll() is not None and (not name or (path.exists() and md.status(path).state == "finished"))

    for _ in range(chance.choice([1, 1, 2])):
        moment = len(counted(arena.counted)) + chance.randrange(1, TILES // 2)
        victim, number = chance.choice(VICTIMS), chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
        poll(lambda moment=moment: len(counted(arena.counted)) >= moment or over(), "the moment to strike", PATIENCE)
        if over():
            break
        story.append(f"{number.name} to the {victim} after {len(counted(arena.counted))} tiles")
        arena.strike(arena.find(victim, command, name), number)
        if (victim, number) == ("scheduler", signal.SIGKILL):
            break

    resumed = finish(arena, path, command, name)
    store = open_store(path)
    computed = len(counted(arena.counted))
    told = f"{'; '.join(story)}; resumed {resumed} times, {computed} tiles computed for {TILES}"
    sys.stdout.write(f"\nseed {seed}, {how[0]}: {told}\n")
    assert store.checksum() == expected
    field = store.escape_time[:]
    for level in store.description.levels:
        assert store.done(level.number).all()
        k = level.stride
        assert (store.window(slice(None), slice(None), level.number) == field[::k, ::k]).all()
    assert TILES <= computed <= TILES + AT_MOST_TWICE * max(1, len(story))


def finish(arena, path, command, name):
    """Resume until the store is complete; how often that was needed."""
    for attempt in range(ATTEMPTS):
        assert command.wait(PATIENCE) in (0, 3, 5, -signal.SIGKILL), (arena.folder / "commands.log").read_text()
        if path.exists():  # a driver that lives somewhere else
            poll(lambda: md.status(path).ended or arena.dask.scheduler.poll() is not None, "the driver's end", PATIENCE)
            if md.status(path).state == "finished":
                return attempt
        arena.make_whole()
        # the lease of a submitted job that died with its scheduler holds for a while
        poll(lambda: not path.exists() or md.status(path).ended, "the end of the lease", PATIENCE)
        command = arena.start("resume", path, "--kernel", "counted", "--no-image")
    raise AssertionError(f"not complete after {ATTEMPTS} attempts: {(arena.folder / 'commands.log').read_text()}")
