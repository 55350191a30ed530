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

Description = dict[str, Any]
Facts = list[tuple[str, str]]

# The loops of the lesson's function and of the NumPy kernels, by NumPy's type codes: d is float64, D complex128.
LOOPS = {
    "np.abs of complex128": ("absolute", "Dd"),
    "z ** 2 of complex128": ("square", "DD"),
    "z + c of complex128": ("add", "DDD"),
    "x * x of float64": ("multiply", "ddd"),
    "x + y of float64": ("add", "ddd"),
    "x <= 4 of float64": ("less_equal", "dd?"),
    "np.sqrt of float64": ("sqrt", "dd"),
    "np.exp of float64": ("exp", "dd"),
    "np.sin of float64": ("sin", "dd"),
}
BLAS_NAMES = {  # part of threadpoolctl's or NumPy's name -> the name people use
    "openblas": "OpenBLAS",
    "mkl": "Intel MKL",
    "accelerate": "Apple Accelerate",
    "blis": "BLIS",
    "flexiblas": "FlexiBLAS",
    "atlas": "ATLAS",
    "lapack": "reference LAPACK",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
BLAS_VARIABLES = dict(zip(("", "OpenBLAS", "Intel MKL", "Apple Accelerate"), THREAD_VARIABLES, strict=True))


def describe() -> Description:
    """What the calling process has: host, cores, NumPy, BLAS, Numba, Dask."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gil": bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "numpy": {"version": np.__version__, "simd": simd(), "loops": loops()},
        "blas": blas(),
        "numba": numba(),
        "dask": dask_settings(),
    }


def cores() -> Description:
    """The CPU, the cores it has, and those this process may use: affinity and cgroups respected."""
    return {
        "cpu": _cpu_name(),
        "architecture": platform.machine(),
        "physical": psutil.cpu_count(logical=False),
        "logical": os.cpu_count(),
        "affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "usable": usable_cores(),
    }


def usable_cores() -> int:
    """Cores this process may use, from its affinity and its cgroup's quota."""
    return int(cpu_count())


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
    found = {"baseline": "baseline", "found": "found", "missing": "not found"}
    disabled = os.environ.get("NPY_DISABLE_CPU_FEATURES", "")
    return {name: list(extensions.get(key, [])) for name, key in found.items()} | {"disabled": disabled}


def loops() -> dict[str, str]:
    """The SIMD target that NumPy's dispatch chose for each loop; "not dispatched" where a loop has one version only."""
    try:
        from numpy.lib.introspect import opt_func_info
    except ImportError:
        return {}
    known = opt_func_info()
    chosen = {title: known.get(name, {}).get(types, {}) for title, (name, types) in LOOPS.items()}
    return {title: info.get("current") or "not dispatched" for title, info in chosen.items()}


def blas() -> Description:
    """The BLAS that NumPy was built with, and the libraries with threads of their own that are loaded.

    `recognised` is False where threadpoolctl finds no BLAS: `threads` is then None, and nothing here can set it.
    """
    np.ones((2, 2)) @ np.ones((2, 2))  # some libraries are loaded at their first use
    pools = threadpoolctl.threadpool_info()
    loaded: dict[str, Any] = next((pool for pool in pools if pool.get("user_api") == "blas"), {})
    built = _numpy_build("Build Dependencies").get("blas", {})
    name = str(loaded.get("internal_api") or built.get("name") or "unknown")
    told = ("user_api", "internal_api", "version", "num_threads", "threading_layer")
    return {
        "recognised": bool(loaded),
        "name": next((title for part, title in BLAS_NAMES.items() if part in name.lower()), name),
        "version": loaded.get("version") or built.get("version"),
        "built_with": {"name": built.get("name"), "version": built.get("version")},
        "threads": loaded.get("num_threads"),
        "threading": loaded.get("threading_layer"),
        "architecture": loaded.get("architecture"),
        "pools": [{key: pool.get(key) for key in told} for pool in pools],
    }


def numba() -> Description:
    """Numba's version, threads and threading layer; `available` is False, with the reason, where it cannot be used."""
    try:
        found = importlib.import_module("numba")
    except ImportError as error:
        return {"available": False, "why": str(error)}
    config = found.config
    if config.DISABLE_JIT:
        return {"available": False, "why": "NUMBA_DISABLE_JIT switches it off", "version": found.__version__}
    return {
        "available": True,
        "version": found.__version__,
        "threads": int(config.NUMBA_NUM_THREADS),
        "threading_layer": str(config.THREADING_LAYER),
        "cpu": config.CPU_NAME or "host",
    }


def dask_settings() -> Description:
    """Dask's version, the threads its own scheduler takes, and what keeps threads from nesting."""
    environ = dask.config.get("distributed.nanny.pre-spawn-environ", {}) or {}
    return {
        "version": dask.__version__,
        "distributed": distributed.__version__,
        "threads": dask.config.get("num_workers", None) or usable_cores(),
        "nanny_sets": {k: str(v) for k, v in environ.items() if k in THREAD_VARIABLES},
        "environment": {k: os.environ[k] for k in (*THREAD_VARIABLES, "NUMBA_NUM_THREADS") if k in os.environ},
    }


def process_warnings(process: Description) -> list[str]:
    """Where Dask's threads in one process, times its BLAS threads, exceed the cores: what happens, and the remedy."""
    threads, inner, usable = process["dask"]["threads"], process["blas"]["threads"], process["cores"]["usable"]
    if not inner or inner == 1 or threads * inner <= usable:
        return []
    return [
        f"{threads} Dask threads x {inner} BLAS threads are more than the {usable} usable "
        f"{'core' if usable == 1 else 'cores'}: where Dask's threads call dot or inv, set "
        f"{_thread_variable(process)}=1 before Python starts, or wrap the call in "
        "threadpoolctl.threadpool_limits(1)"
    ]


def worker_warnings(workers: Mapping[str, Description], threads: Mapping[str, int]) -> list[str]:
    """Where the workers of a host, times their threads, times their BLAS threads, exceed its cores: and the remedy.

    Parameters
    ----------
    workers, threads
        Address of a worker to its `describe()`, and to its number of Dask threads.
    """
    by_host: dict[str, list[str]] = defaultdict(list)
    for address, described in workers.items():
        by_host[described["host"]].append(address)
    warnings = []
    for host, addresses in by_host.items():
        dasks = sum(threads[a] for a in addresses)
        total = sum(threads[a] * (workers[a]["blas"]["threads"] or 1) for a in addresses)
        usable = max(workers[a]["cores"]["usable"] for a in addresses)
        start = f"{host}: {len(addresses)} workers with {dasks} threads in all"
        if total > usable and total > dasks:
            variable = _thread_variable(workers[addresses[0]])
            warnings.append(
                f"{start} x their BLAS threads make {total} on {usable} usable cores; start the workers with "
                f"{variable}=1, as Dask's nanny does by default"
            )
        elif dasks > usable:
            warnings.append(f"{start} on {usable} usable cores; start no more than {usable}")
    return warnings


def _thread_variable(process: Description) -> str:
    """The environment variable that sets the threads of a process's BLAS."""
    return BLAS_VARIABLES.get(process["blas"]["name"], BLAS_VARIABLES[""])


def side_by_side(processes: Iterable[Description]) -> list[tuple[str, list[str]]]:
    """One row a fact, with one text a process."""
    rows: dict[str, list[str]] = {}
    for p in processes:
        for label, text in _facts(p):
            rows.setdefault(label, []).append(text)
    return list(rows.items())


def _facts(p: Description) -> Facts:
    core, numpy, d = p["cores"], p["numpy"], p["dask"]
    affinity = "" if core["affinity"] in (None, core["logical"]) else f", {core['affinity']} by affinity"
    return [
        ("host", f"{p['host']}, {p['system']}"),
        ("CPU", f"{core['cpu']} ({core['architecture']})"),
        ("cores", f"{core['usable']} usable of {core['logical']}{affinity}; {core['physical'] or 'unknown'} physical"),
        ("memory", f"{p['memory_bytes'] / 2**30:.3g} GiB"),
        ("Python", f"{p['python']}{'' if p['gil'] else ', without the GIL'}"),
        ("NumPy", numpy["version"]),
        ("SIMD baseline", " ".join(numpy["simd"]["baseline"]) or "none"),
        ("SIMD found", " ".join(numpy["simd"]["found"]) or "none beyond the baseline"),
        ("SIMD missing", " ".join(numpy["simd"]["missing"]) or "none"),
        *((f"loop {title}", target) for title, target in numpy["loops"].items()),
        *_blas_facts(p["blas"]),
        ("Numba", _numba_text(p["numba"])),
        ("Dask", f"{d['version']}, {d['threads']} threads"),
        ("environment", _settings(d["environment"])),
        ("Dask's nanny sets", _settings(d["nanny_sets"])),
    ]


def _blas_facts(b: Description) -> Facts:
    if not b["recognised"]:
        return [("BLAS", f"{b['name']}; threadpoolctl does not know it, so its threads cannot be told or set")]
    return [
        ("BLAS", f"{b['name']} {b['version'] or ''}".strip()),
        ("BLAS threads", f"{b['threads']}, {b['threading'] or 'unknown layer'}"),
        ("BLAS kernels", b["architecture"] or "unknown"),
    ]


def _numba_text(n: Description) -> str:
    if not n["available"]:
        return f"not available: {n['why']}"
    return f"{n['version']}, {n['threads']} threads, layer {n['threading_layer']}"


def _settings(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{k}={v}" for k, v in variables.items()) or "no threads"
