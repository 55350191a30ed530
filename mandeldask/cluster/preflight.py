"""What is checked on scheduler and workers before work goes there: versions, and whether they reach the store.

Without it, a package that is missing on the workers hangs the client, silently, and a store that only the client sees
gives an error a tile. What is asked before mandeldask is known to be there is asked of Dask or the standard library.
"""

from __future__ import annotations

import hashlib
import io
import pkgutil
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client
from distributed.versions import get_versions

from mandeldask import __version__
from mandeldask.check import loaded_from, why_unusable
from mandeldask.errors import ClusterError
from mandeldask.kernels import AUTO, DEEP, lacking, report
from mandeldask.store import Store
from mandeldask.text import option, plural, table

ANSWER_SECONDS = 30.0
MISSING = "missing"
# What mandeldask itself needs. Client and workers on Python 3.11 and 3.13, numpy 2.4 and 2.5, zarr 3.1.6 and 3.4.2
# worked, either way round, and so did a scheduler or workers with dask 2025.7.0 and 2026.7.1.
OLDEST = {
    "mandeldask": __version__,
    "python": "3.11",
    "dask": "2025.7",
    "distributed": "2025.7",
    "numpy": "2.0",
    "numba": "0.62",
    "zarr": "3.1.4",
}
Versions = dict[str, dict[str, str]]  # "client", "scheduler", "2 workers" -> package -> version


def check(
    client: Client,
    kernel: str,
    *,
    upload: bool = False,
    needs: str = "mandeldask.check",
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Compare versions, after an `upload` if wanted; `say` is given a table where they differ.

    ClusterError names what is missing or too old for the `kernel` or for a module of ours that scheduler and workers
    are to import, where, and what to do.
    """
    if upload:
        say("sending mandeldask to the scheduler and the workers")
        _upload(client)
    found = versions(client)
    for line in version_lines(found):
        say(line)
    if problems := [problem for name in OLDEST if (problem := _problem(name, found, kernel))]:
        raise ClusterError("\n".join(problems))
    _check_imports(client, needs)


def _check_imports(client: Client, module: str) -> None:
    """ClusterError where scheduler or workers lack a package that the module imports."""
    answers = _ask(client, pkgutil.resolve_name, f"{module}:__name__", scheduler=True)
    failed = {place: error for place, error in answers.items() if isinstance(error, ImportError)}
    if failed:
        place, error = next(iter(failed.items()))
        others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        where = "the scheduler" if place == "scheduler" else place
        raise ClusterError(f"{error}, on {where}{others}: install {error.name} there")


def versions(client: Client) -> Versions:
    """Versions on the client, the scheduler, and the workers; workers that agree share a column."""
    found = _ask(client, get_versions, ["numba", "zarr"], scheduler=True)
    # Dask reads the versions of what is installed, which a mandeldask that was sent is not
    ours = _ask(client, pkgutil.resolve_name, "mandeldask:__version__", scheduler=True)
    answered = [place for place in found if place in ours and isinstance(found[place], dict)]
    there = {place: _column(found[place], ours[place]) for place in answered}
    columns = {"client": _column(get_versions(["numba", "zarr"]), __version__), "scheduler": there.pop("scheduler")}
    for column, n in Counter(tuple(column.items()) for column in there.values()).items():
        place = plural(n, "worker")
        while place in columns:  # as many as in another group
            place = f"another {place}"
        columns[place] = dict(column)
    return columns


def _column(found: Any, ours: Any) -> dict[str, str]:
    packages = found["packages"] | {"mandeldask": ours if isinstance(ours, str) else MISSING}
    packages["python"] = ".".join(packages["python"].split(".")[:3])  # of 3.13.1.final.0
    return {name: packages[name] or MISSING for name in OLDEST}


def version_lines(found: Versions, everything: bool = False) -> list[str]:
    """The versions that differ, or all, as aligned lines; none where all agree."""
    columns = found.values()
    names = [name for name in OLDEST if everything or len({column[name] for column in columns}) > 1]
    rows = [["", *found], *([name, *(column[name] for column in columns)] for name in names)] if names else []
    return table(rows).splitlines()


def _problem(name: str, found: Versions, kernel: str) -> str:
    """What is wrong with a package, where, and the remedy; "" where nothing is."""
    remedies = {
        "mandeldask": f"install mandeldask {__version__} there, or send this one with {option('upload')}",
        "numba": "install it there, or take the kernel numpy-compact: the same counts, more slowly",
    }
    if kernel == DEEP:  # there is no other
        remedies["numba"] = "install it there"

    def works(version: str) -> bool:
        if name == "mandeldask":
            return version == __version__
        if name == "numba" and kernel not in ("numba", AUTO, DEEP):
            return True
        return version != MISSING and _numbers(version) >= _numbers(OLDEST[name])

    wrong = [
        f"{column[name]} on {place if 'worker' in place else f'the {place}'}"
        for place, column in found.items()
        if place != "client" and not works(column[name])
    ]
    remedy = remedies.get(name, f"install {name} {OLDEST[name]} or newer there")
    return f"{name} is {', '.join(wrong)}: {remedy}" if wrong else ""


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, to compare."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def check_devices(client: Client) -> None:
    """Have every worker try the kernel cuda; ClusterError for one that cannot run it."""
    answers = _ask(client, lacking, "cuda")
    if failed := [(worker, reason) for worker, reason in answers.items() if reason]:
        worker, reason = failed[0]
        raise ClusterError(
            f"{len(failed)} of {plural(len(answers), 'worker')} cannot run the kernel cuda: on {worker} it {reason}. "
            "Have a GPU at each worker, or take --set kernel=numba: the same counts"
        )


def kernels_of(client: Client) -> list[str]:
    """Lines on what auto is on the workers that are there; none where none has a GPU."""
    reports = {worker: answer for worker, answer in _ask(client, report).items() if isinstance(answer, tuple)}
    names = Counter(kernel for kernel, _ in reports.values())
    each = ", ".join(f"{name} on {n}" for name, n in sorted(names.items()))
    unused = [f"{worker} computes on its CPU, as cuda {problem}" for worker, (_, problem) in reports.items() if problem]
    return ([f"of {plural(names.total(), 'worker')}: {each}"] if "cuda" in names else []) + unused[:1]


def check_store(client: Client, store: Store) -> None:
    """Have every worker look at the store, write a small file there and remove it; ClusterError for one that cannot."""
    answers = _ask(client, why_unusable, store)
    failed = [(worker, reason) for worker, reason in answers.items() if reason]
    if failed:
        worker, reason = failed[0]
        raise ClusterError(
            f"{len(failed)} of {plural(len(answers), 'worker')} cannot use the store: {worker} says of "
            f"{store.path}: {reason}. Every worker needs a path that all machines share, and the right to write there: "
            "choose another path"
        )


def _upload(client: Client) -> None:
    """Send this package as a zip file; Dask puts it on the path of scheduler and workers, those to come included."""
    package, data = Path(__file__).parent.parent, io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for path in sorted(package.rglob("*")):
            if path.is_file() and path.parent.name != "__pycache__":
                file.writestr(zipfile.ZipInfo(str(path.relative_to(package.parent))), path.read_bytes())
    with TemporaryDirectory() as folder:
        # named by what is in it: sent again, it is what is there already
        archive = Path(folder, f"mandeldask-{hashlib.sha256(data.getvalue()).hexdigest()[:12]}.zip")
        archive.write_bytes(data.getvalue())
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


def _ask(client: Client, function: Callable[..., Any], *arguments: Any, scheduler: bool = False) -> dict[str, Any]:
    """What each worker answers, by its address, or its exception; the scheduler too, if asked for.

    A worker that is lost meanwhile is passed over. ClusterError where the cluster does not answer.
    """
    answers: dict[str, Any] = {}
    try:
        if scheduler:
            try:
                answers["scheduler"] = client.run_on_scheduler(function, *arguments, callback_timeout=ANSWER_SECONDS)
            except (ImportError, AttributeError) as error:
                answers["scheduler"] = error
        told = client.run(function, *arguments, on_error="return", callback_timeout=ANSWER_SECONDS)
        answers |= {worker: answer for worker, answer in told.items() if not isinstance(answer, OSError)}
    except TimeoutError:
        raise ClusterError(
            f"not all of the cluster answered within {ANSWER_SECONDS:.0f} s: end what hangs (see its dashboard)"
        ) from None
    except OSError:
        raise ClusterError(
            "the scheduler was lost while its workers were looked at: start it again, then the same command"
        ) from None
    return answers
