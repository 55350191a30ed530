"""What is looked at on scheduler and workers before work goes there: versions, and whether they reach the store.

Without it, a package that is missing on the workers hangs the client, silently, and a store that only the client sees
gives an error a tile. What is asked before mandeldask is known to be there is asked of the standard library.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import platform
import sys
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from mandeldask import __version__
from mandeldask.cluster.wait import silent
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.store import Store, open_store

ANSWER_SECONDS = 30.0
MISSING = "missing"
# Client and workers on Python 3.11 and 3.13, numpy 2.4 and 2.5, zarr 3.1.6 and 3.4.2 worked, either way round, and so
# did a scheduler or workers with dask 2025.7.0 and 2026.7.1; with 2024.12.1 nothing was computed. The others are what
# mandeldask itself needs.
OLDEST = {"python": "3.11", "dask": "2025.7.0", "distributed": "2025.7.0", "numpy": "2.1", "zarr": "3.1.6"}
ASKED: dict[str, tuple[Any, ...]] = {  # function and arguments
    "mandeldask": (pkgutil.resolve_name, "mandeldask:__version__"),
    "python": (platform.python_version,),
    **{name: (metadata.version, name) for name in ("dask", "distributed", "numpy", "numba", "zarr")},
}
Versions = dict[str, str]  # of one process: package -> version


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
    problems = [problem for name in ASKED if (problem := _problem(name, columns, kernel))]
    if problems:
        raise ClusterError("\n".join(problems))


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


def table(columns: Mapping[str, Versions], everything: bool = False) -> list[str]:
    """The versions that differ, or all, as aligned lines; none where all agree."""
    names = [name for name in ASKED if everything or len({column[name] for column in columns.values()}) > 1]
    if not names:
        return []
    rows = [["", *columns], *([name, *(column[name] for column in columns.values())] for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def versions(client: Client) -> dict[str, Versions]:
    """Versions on the client, the scheduler, and the workers; workers that agree share a column."""
    asked = {name: _ask(client, *call, scheduler=True) for name, call in ASKED.items()}
    here: Versions = {name: str(_here(*call)) for name, call in ASKED.items()}
    servers = {server: {name: _shown(asked[name].get(server)) for name in ASKED} for server in asked["mandeldask"]}
    columns = {"client": here, "scheduler": servers.pop("scheduler")}
    groups = Counter(tuple(column.items()) for column in servers.values())
    for column, n in groups.items():
        name = f"{n} worker{'' if n == 1 else 's'}"
        while name in columns:  # another group of as many
            name += " "
        columns[name] = dict(column)
    return columns


def _problem(name: str, columns: Mapping[str, Versions], kernel: str) -> str:
    """What is wrong with a package, where, and the remedy; "" where it is well."""
    elsewhere = {place: column[name] for place, column in columns.items() if place != "client"}
    if name == "mandeldask":
        wrong = {place: version for place, version in elsewhere.items() if version != __version__}
        remedy = f"install mandeldask {__version__} there, or send this one with --upload"
    elif name == "numba":
        wrong = {place: version for place, version in elsewhere.items() if version == MISSING and kernel == "numba"}
        remedy = "install it there, or use --set kernel=numpy-compact: the same counts, more slowly"
    else:
        oldest = OLDEST[name]
        wrong = {p: v for p, v in elsewhere.items() if v == MISSING or _numbers(v) < _numbers(oldest)}
        remedy = f"install {name} {oldest} or newer there"
    if not wrong:
        return ""
    return f"{name} is {', '.join(f'{v} on {_place(p)}' for p, v in wrong.items())}: {remedy}"


def _place(column: str) -> str:
    return column.strip() if "worker" in column else f"the {column}"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ImportError:  # numba may be missing, or another be a checkout that was never installed
        return MISSING


def _shown(answer: Any) -> str:
    if isinstance(answer, ImportError | AttributeError):
        return MISSING
    return type(answer).__name__ if isinstance(answer, BaseException) else str(answer)


def _ask(client: Client, function: Callable[..., Any], *arguments: Any, scheduler: bool = False) -> dict[str, Any]:
    """What each worker answers, by its address, or its exception; the scheduler too, if asked for."""
    answers: dict[str, Any] = {}
    try:
        if scheduler:
            try:
                answers["scheduler"] = client.run_on_scheduler(function, *arguments, callback_timeout=ANSWER_SECONDS)
            except (ImportError, AttributeError) as error:
                answers["scheduler"] = error
        answers |= client.run(function, *arguments, on_error="return", callback_timeout=ANSWER_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"not all of the cluster answered within {ANSWER_SECONDS:.0f} s: a worker or its file system hangs. "
            "See the workers' page of the dashboard, and end what does not answer"
        ) from None
    except OSError:
        raise ClusterError(
            "the scheduler was lost while its workers were looked at: start it again, then the same command"
        ) from None
    return answers


def _upload(client: Client) -> None:
    """Send this package as a zip file; Dask puts it on the path of scheduler and workers, those to come included."""
    package = Path(__file__).parent.parent
    sources = {str(path.relative_to(package.parent)): path.read_bytes() for path in sorted(package.rglob("*.py"))}
    digest = hashlib.sha256(repr(sources).encode()).hexdigest()[:12]
    with TemporaryDirectory() as folder:
        archive = Path(folder, f"mandeldask-{digest}.zip")  # sent again, it is what is there already
        with zipfile.ZipFile(archive, "w") as file:
            for name, source in sources.items():
                file.writestr(zipfile.ZipInfo(name), source)
        try:
            client.upload_file(str(archive))
        except Exception as error:  # whatever an import there may raise
            raise ClusterError(f"the cluster cannot import what was sent: {type(error).__name__}: {error}") from None
        stale = {
            place for place, loaded in _ask(client, loaded_from, scheduler=True).items() if loaded != [archive.name]
        }
    if stale:
        raise ClusterError(
            f"{', '.join(sorted(stale))} had loaded a mandeldask before, and goes on with that: restart it first "
            "(client.restart() restarts workers)"
        )


def loaded_from() -> list[str]:
    """Runs on scheduler and workers: the archives, or folders, that the modules of mandeldask came from."""
    files = {m.__file__ or "" for name, m in sys.modules.items() if name.partition(".")[0] == "mandeldask"}
    return sorted({Path(file.rpartition(f"{os.sep}mandeldask{os.sep}")[0]).name for file in files})
