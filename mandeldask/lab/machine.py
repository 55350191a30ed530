"""What there is to compute with in a process: cores, NumPy's SIMD, BLAS and its threads, Numba, Dask.

`describe` tells of the process that calls it, as JSON takes it: run it on workers with `client.run(describe)`.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dask
import distributed  # its settings belong to Dask's, once it is imported
import numpy as np
import psutil
import threadpoolctl
from dask.system import cpu_count
from numpy.lib.introspect import opt_func_info

from mandeldask.errors import ConfigError
from mandeldask.kernels import choose

Description = dict[str, Any]

# The loops of the lesson's function and of the NumPy kernels, by NumPy's type codes: d is float64, D complex128.
LOOPS = {
    "np.abs of complex128": ("absolute", "Dd"),
    "z ** 2 of complex128": ("square", "DD"),
    "z + c of complex128": ("add", "DDD"),
    "x * x of float64": ("multiply", "ddd"),
    "x <= 4 of float64": ("less_equal", "dd?"),
    "np.sqrt of float64": ("sqrt", "dd"),
    "np.exp of float64": ("exp", "dd"),
}
BLAS = {  # part of threadpoolctl's or NumPy's name -> the name people use, and the variable that sets its threads
    "openblas": ("OpenBLAS", "OPENBLAS_NUM_THREADS"),
    "mkl": ("Intel MKL", "MKL_NUM_THREADS"),
    "accelerate": ("Apple Accelerate", "VECLIB_MAXIMUM_THREADS"),
}
VARIABLES = ("environment", "nanny_sets")  # facts that are variables and what they are set to
THREAD_VARIABLES = ("OMP_NUM_THREADS", *(variable for _, variable in BLAS.values()))


def describe() -> Description:
    """What the calling process has: host, cores, NumPy, BLAS, Numba, Dask."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gil": has_gil(),
        "cores": {
            "cpu": _cpu_name(),
            "architecture": platform.machine(),
            "physical": psutil.cpu_count(logical=False),
            "logical": os.cpu_count(),
            "usable": cpu_count(),  # by affinity and the quota of a cgroup
        },
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "numpy": {"version": np.__version__, "simd": simd(), "loops": _loops()},
        "blas": blas(),
        "numba": _numba(),
        "dask": _dask_settings(),
    }


def has_gil() -> bool:
    """False in a free-threaded Python."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    match = info.exists() and re.search(r"^model name\s*:\s*(.+)$", info.read_text(errors="replace"), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _numpy_build(part: str) -> dict[str, Any]:
    config: Any = np.show_config(mode="dicts")
    return dict(config.get(part, {}))


def simd() -> Description:
    """NumPy's SIMD features: baseline (in every loop), found (more that this CPU has), missing (more that it lacks)."""
    extensions = _numpy_build("SIMD Extensions")
    names = {"baseline": "baseline", "found": "found", "missing": "not found"}
    return {name: list(extensions.get(key, [])) for name, key in names.items()}


def _loops() -> dict[str, str]:
    """The SIMD target that NumPy's dispatch chose for each loop; "not dispatched" where a loop has one version only."""
    known = opt_func_info()
    chosen = {title: known.get(name, {}).get(types, {}) for title, (name, types) in LOOPS.items()}
    return {title: info.get("current") or "not dispatched" for title, info in chosen.items()}


def blas() -> Description:
    """The BLAS that NumPy uses, and its threads.

    `recognised` is False where threadpoolctl finds no BLAS: `threads` is then None, and nothing here can set it.
    """
    np.ones((2, 2)) @ np.ones((2, 2))  # some libraries are loaded at their first use
    loaded: dict[str, Any] = next((p for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"), {})
    built = _numpy_build("Build Dependencies").get("blas", {})
    name = str(loaded.get("internal_api") or built.get("name") or "unknown")
    known = (names for part, names in BLAS.items() if part in name.lower())
    title, variable = next(known, (name, "OMP_NUM_THREADS"))
    return {
        "recognised": bool(loaded),
        "name": title,
        "version": loaded.get("version") or built.get("version"),
        "threads": loaded.get("num_threads"),
        "threading": loaded.get("threading_layer"),
        "architecture": loaded.get("architecture"),
        "variable": variable,
    }


def _numba() -> Description:
    """Numba's version, threads and threading layer; `available` is False, with the reason, where it cannot be used."""
    try:
        choose("numba")
    except ConfigError as error:
        return {"available": False, "why": str(error)}
    found = importlib.import_module("numba")
    return {
        "available": True,
        "version": found.__version__,
        "threads": int(found.config.NUMBA_NUM_THREADS),
        "threading_layer": str(found.config.THREADING_LAYER),
    }


def _dask_settings() -> Description:
    """Dask's version, the threads its own scheduler takes, and what keeps threads from nesting."""
    environ = dask.config.get("distributed.nanny.pre-spawn-environ", {}) or {}
    return {
        "version": dask.__version__,
        "distributed": distributed.__version__,
        "threads": dask.config.get("num_workers", None) or cpu_count(),
        "nanny_sets": {k: str(v) for k, v in environ.items() if k in THREAD_VARIABLES},
        "environment": {k: os.environ[k] for k in (*THREAD_VARIABLES, "NUMBA_NUM_THREADS") if k in os.environ},
    }


def thread_warnings(processes: Mapping[str, Description], threads: Mapping[str, int]) -> list[str]:
    """Where a host's Dask threads, times the BLAS threads of their processes, exceed its cores: and the remedy.

    Parameters
    ----------
    processes, threads
        Name of a process to its `describe()`, and to its number of Dask threads.
    """
    by_host: dict[str, list[str]] = defaultdict(list)
    for name, process in processes.items():
        by_host[process["host"]].append(name)
    warnings = []
    for host, names in by_host.items():
        dasks = sum(threads[name] for name in names)
        total = sum(threads[name] * (processes[name]["blas"]["threads"] or 1) for name in names)
        usable, variable = processes[names[0]]["cores"]["usable"], processes[names[0]]["blas"]["variable"]
        if total > usable and total > dasks:
            warnings.append(
                f"{host}: {dasks} Dask threads, times their BLAS threads, make {total} on {usable} usable cores: start "
                f"Python with {variable}=1, as Dask's nanny does, where they call dot or inv"
            )
        elif dasks > usable:
            warnings.append(f"{host}: {dasks} Dask threads on {usable} usable cores: start no more than {usable}")
    return warnings


def busy_warnings() -> list[str]:
    """Whether other programs take the cores, while this one does nothing."""
    total = os.cpu_count() or 1
    taken = psutil.cpu_percent(interval=0.5) / 100 * total
    if total - taken >= 0.9 * cpu_count():
        return []
    return [f"other programs take {taken:.1f} of {total} cores: the figures are better from a quieter machine"]


def side_by_side(processes: Iterable[Description]) -> list[tuple[str, list[str]]]:
    """One row a fact, with one text a process: empty where it has no such fact, as where Numba is missing."""
    facts = [_facts(process) for process in processes]
    labels = dict.fromkeys(label for each in facts for label in each if label != "pid")
    return [(label.replace("_", " "), [each.get(label, "") for each in facts]) for label in labels]


def _facts(described: Description, under: str = "") -> dict[str, str]:
    """What is described, flat, in words."""
    facts: dict[str, str] = {}
    for key, value in described.items():
        if isinstance(value, dict) and key not in VARIABLES:
            facts |= _facts(value, f"{under}{key} ")
        elif isinstance(value, dict):
            facts[under + key] = ", ".join(f"{k}={v}" for k, v in value.items()) or "no threads"
        else:
            facts[under + key] = (" ".join(value) or "none") if isinstance(value, list) else str(value)
    return facts
