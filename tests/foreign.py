"""Every reading command on one store, in this process: what each says, and the most memory any took. Prints JSON."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from click.testing import CliRunner
from distributed import Client

import mandeldask as md
from mandeldask.cli import cli
from mandeldask.errors import MandeldaskError


def peak():
    """MiB that this process has had in memory at most; unlike ru_maxrss nothing of its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def command(*words):
    done = CliRunner().invoke(cli, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        return "traceback", "".join(traceback.format_exception(done.exception))
    return done.exit_code, done.output


def call(function, *arguments, **named):
    try:
        return 0, repr(function(*arguments, **named))[:300]
    except MandeldaskError as error:
        return error.exit_code, str(error)
    except Exception:
        return "traceback", traceback.format_exc()


def main(path, folder):
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        tries = {
            "status": lambda: command("status", path),
            "verify": lambda: command("verify", path, "--recompute", "1"),
            "verify quick": lambda: command("verify", path, "--quick"),
            "image": lambda: command("image", path, f"{folder}/a.png"),
            "checksum": lambda: command("checksum", path),
            "open": lambda: call(lambda: md.open(path)["escape_time"].sum().values),
            "deepen": lambda: call(md.deepen, path, 2000, f"{folder}/deeper.zarr", kernel="numpy", client=client),
            "resume": lambda: call(md.resume, path, kernel="numpy", client=client),
            "overwrite": lambda: call(
                md.run,
                {"view": {"x": [0, 1], "y": [0, 1], "shape": [8, 8]}, "max_iter": 5, "kernel": "numpy"},
                path,
                overwrite=True,
                client=client,
            ),
        }
        found = {}
        for name in sys.argv[3:] or tries:
            code, text = tries[name]()
            found[name] = {"code": code, "text": text, "peak": peak()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
