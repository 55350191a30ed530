"""What is checked on scheduler and workers before work goes there: versions, and whether they reach the store.

Without it, a package that is missing on the workers hangs the client, silently, and a store that only the client sees
gives an error a tile. What is asked before mandeldask is known to be there is asked of the standard library.
"""

from __future__ import annotations

import hashlib
import io
import os
import pkgutil
import platform
import re
import sys
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from mandeldask import __version__
from mandeldask.cluster.workers import silent
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.store import Store, open_store

ANSWER_SECONDS = 30.0
MISSING = "missing"
# Client and workers on Python 3.11 and 3.13, numpy 2.4 and 2.5, zarr 3.1.6 and 3.4.2 worked, either way round, and so
# did a scheduler or workers with dask 2025.7.0 and 2026.7.1; with 2024.12.1 nothing was computed. The others are what
# mandeldask itself needs.
OLDEST = {"python": "3.11", "dask": "2025.7.0", "distributed": "2025.7.0", "numpy": "2.1", "zarr": "3.1.6"}
PACKAGES = ("mandeldask", "python", "dask", "distributed", "numpy", "numba", "zarr")
Versions = dict[str, str]  # of one process: package -> version
Column = tuple[str, Versions]  # whose they are: "client", "scheduler", "2 workers"


def check(client: Client, kernel: str, *, upload: bool = False, say: Callable[[str], None] = silent) -> None:
    """Compare versions on client, scheduler and workers; `say` is given a table where they differ.

    Parameters
    ----------
    kernel : str
        A name of KERNELS: numba has to be there for its own.
    upload : bool
        Send this mandeldask to the scheduler and to every worker first, those to come included.

    Raises
    ------
    ClusterError
        What is missing or too old, where, and what to do.
    """
    if upload:
        say("sending mandeldask to the scheduler and the workers")
        _upload(client)
    columns = versions(client)
    for text in table(columns):
        say(text)
    if problems := [problem for name in PACKAGES if (problem := _problem(name, columns, kernel))]:
        raise ClusterError("\n".join(problems))


def versions(client: Client) -> list[Column]:
    """Versions on the client, the scheduler, and the workers; workers that agree share a column."""
    # Dask reads the versions of what is installed, which a mandeldask that was sent is not. Asked first, and with a
    # time limit, which `get_versions` has not.
    ours = _ask(client, pkgutil.resolve_name, "mandeldask:__version__", scheduler=True)
    with _lost_or_hanging():
        found = client.get_versions(packages=["numba", "zarr"])
    workers = Counter(tuple(_column(found["workers"][w], ours[w]).items()) for w in found["workers"] if w in ours)
    return [
        ("client", _column(found["client"], __version__)),
        ("scheduler", _column(found["scheduler"], ours["scheduler"])),
        *((f"{n} worker{'' if n == 1 else 's'}", dict(column)) for column, n in workers.items()),
    ]


def _column(found: Any, ours: Any) -> Versions:
    if isinstance(ours, ImportError | AttributeError):
        ours = MISSING
    elif isinstance(ours, BaseException):
        ours = type(ours).__name__
    packages = found["packages"] | {"mandeldask": ours}
    packages["python"] = ".".join(packages["python"].split(".")[:3])  # of 3.13.1.final.0
    return {name: packages[name] or MISSING for name in PACKAGES}


def table(columns: list[Column], everything: bool = False) -> list[str]:
    """The versions that differ, or all, as aligned lines; none where all agree."""
    names = [name for name in PACKAGES if everything or len({column[name] for _, column in columns}) > 1]
    if not names:
        return []
    rows = [["", *(place for place, _ in columns)], *([name, *(c[name] for _, c in columns)] for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _problem(name: str, columns: list[Column], kernel: str) -> str:
    """What is wrong with a package, where, and the remedy; "" where nothing is."""
    oldest = OLDEST.get(name, "0")
    if name == "mandeldask":
        remedy = f"install mandeldask {__version__} there, or send this one with --upload"
    elif name == "numba":
        remedy = "install it there, or use --set kernel=numpy-compact: the same counts, more slowly"
    else:
        remedy = f"install {name} {oldest} or newer there"

    def works(version: str) -> bool:
        if name == "mandeldask":
            return version == __version__
        if version == MISSING:
            return name == "numba" and kernel != "numba"
        return _numbers(version) >= _numbers(oldest)

    wrong = [f"{column[name]} on {_on(place)}" for place, column in columns[1:] if not works(column[name])]
    return f"{name} is {', '.join(wrong)}: {remedy}" if wrong else ""


def _on(place: str) -> str:
    return place if "worker" in place else f"the {place}"


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, to compare."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def check_store(client: Client, store: Store) -> None:
    """Have every worker look at the store, and write a small file there, read it back and remove it.

    Raises
    ------
    ClusterError
        A worker that cannot: which, the path, and what to do.
    """
    answers = _ask(client, reach, store)
    failed = {worker: answer for worker, answer in answers.items() if answer}
    if failed:
        worker, reason = next(iter(failed.items()))
        raise ClusterError(
            f"{len(failed)} of {len(answers)} workers cannot use the store: {worker} says of {store.path}: {reason}. "
            "Every worker needs a path that all machines share, and the right to write there: choose it with --out"
        )


def reach(store: Store) -> str:
    """Runs on a worker: what keeps it from using the store; "" where nothing does."""
    place, token = store.place, uuid.uuid4().hex
    probe = f"zarr.{token}.partial"  # should this process die here, a leftover like any other
    try:
        if open_store(place).identity != store.identity:
            return f"{platform.node()} has another store there"
        place.put(probe, token.encode())
        try:
            same = place.get(probe) == token.encode()
        finally:
            place.delete(probe)
    except FileNotFoundError:
        return f"{platform.node()} has no such folder"
    except OSError as error:
        return f"{platform.node()} cannot write there: {error.strerror or error}"
    except MandeldaskError as error:
        missing = place.is_folder and not os.path.exists(place.url)
        return f"{platform.node()} has no such folder" if missing else f"{platform.node()}: {error}"
    return "" if same else f"{platform.node()} reads back something else than it wrote"


def _upload(client: Client) -> None:
    """Send this package as a zip file; Dask puts it on the path of scheduler and workers, those to come included."""
    data = _archive()
    with TemporaryDirectory() as folder:
        # named by what is in it: sent again, it is what is there already
        archive = Path(folder, f"mandeldask-{hashlib.sha256(data).hexdigest()[:12]}.zip")
        archive.write_bytes(data)
        try:
            client.upload_file(str(archive))
        except Exception as error:  # whatever an import there may raise
            raise ClusterError(f"the cluster cannot import what was sent: {type(error).__name__}: {error}") from None
    loaded = _ask(client, loaded_from, scheduler=True)
    if stale := sorted(place for place, archives in loaded.items() if archives != [archive.name]):
        raise ClusterError(
            f"{', '.join(stale)} had loaded a mandeldask before, and goes on with that: restart it first "
            "(client.restart() restarts workers)"
        )


def _archive() -> bytes:
    package = Path(__file__).parent.parent
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for path in sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            file.writestr(zipfile.ZipInfo(str(path.relative_to(package.parent))), path.read_bytes())
    return data.getvalue()


def loaded_from() -> list[str]:
    """Runs on scheduler and workers: the archives, or folders, that the modules of mandeldask came from."""
    files = {m.__file__ or "" for name, m in sys.modules.items() if name.partition(".")[0] == "mandeldask"}
    return sorted({Path(file.rpartition(f"{os.sep}mandeldask{os.sep}")[0]).name for file in files})


def _ask(client: Client, function: Callable[..., Any], *arguments: Any, scheduler: bool = False) -> dict[str, Any]:
    """What each worker answers, by its address, or its exception; the scheduler too, if asked for."""
    answers: dict[str, Any] = {}
    with _lost_or_hanging():
        if scheduler:
            try:
                answers["scheduler"] = client.run_on_scheduler(function, *arguments, callback_timeout=ANSWER_SECONDS)
            except (ImportError, AttributeError) as error:
                answers["scheduler"] = error
        answers |= client.run(function, *arguments, on_error="return", callback_timeout=ANSWER_SECONDS)
    return answers


@contextmanager
def _lost_or_hanging() -> Iterator[None]:
    """ClusterError where the cluster does not answer."""
    try:
        yield
    except TimeoutError:
        raise ClusterError(
            f"not all of the cluster answered within {ANSWER_SECONDS:.0f} s: a worker or its file system hangs. "
            "See the workers' page of the dashboard, and end what does not answer"
        ) from None
    except OSError:
        raise ClusterError(
            "the scheduler was lost while its workers were looked at: start it again, then the same command"
        ) from None
