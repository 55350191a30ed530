"""The plan of the house: who may import whom, what --help costs, what is public."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import skip_or_fail

import mandeldask as md

PACKAGE = Path(md.__file__).parent
ROOT = Path(__file__).parent.parent

# From the foundation to the roof: a module imports from rooms of earlier lines, and from its own.
RANKS = [
    {"errors", "text"},
    {"view"},
    {"buffers"},
    {"kernels"},
    {"grid"},
    {"field"},
    {"config"},
    {"store"},
    {"telemetry"},
    {"tile"},
    {"check", "precise"},
    {"cluster"},
    {"image"},
    {"dashboard"},
    {"job"},  # a notebook shows a run with its picture, and a run puts its page into the dashboard
    {"explorer", "lab", "measure", "progress", "zoom"},  # leaves: none knows another
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
FORBIDDEN = {
    "errors": {"numpy", "dask", "distributed", "zarr"},
    "view": {"dask", "distributed", "zarr"},
    "kernels": {"dask", "distributed", "zarr"},
    "grid": {"distributed", "zarr"},
    "field": {"distributed", "zarr"},
    "config": {"dask", "distributed", "zarr"},
    "store": {"distributed"},
    "image": {"dask", "distributed", "zarr"},
    "telemetry": {"dask", "distributed", "zarr", "pydantic"},
    "dashboard": {"dask.array", "zarr"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = {module: path.read_text() for module, path in MODULES.items() if module != "__init__"}


def imports(node):
    """The full names that an import statement, or a call of `import_module` with a literal, brings in."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return {name.value for name in node.args if isinstance(name, ast.Constant)}
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute, so that this test can read them"
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def all_imports(source):
    """Imports anywhere: inside functions and for type checkers too."""
    return set().union(*(imports(node) for node in ast.walk(ast.parse(source))))


def trespasses(room, source):
    """What a module of `room` imports that its rank or its purpose does not allow."""
    bad = []
    for name in all_imports(source):
        first, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if first in FORBIDDEN.get(room, ()):
            bad.append(name)
        elif first == "mandeldask" and other != "__version__":
            assert other in RANK, f"{name}: give the room its place in RANKS"
            if other != room and RANK[other] >= RANK[room]:
                bad.append(name)
    return sorted(bad)


def test_imports_go_in_one_direction_only():
    found = {module: trespasses(module.partition(".")[0], source) for module, source in ROOMS.items()}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("view", "from mandeldask.kernels import KERNELS", ["mandeldask.kernels.KERNELS"]),
        ("view", "from mandeldask import job", ["mandeldask.job"]),
        ("view", "import mandeldask.store", ["mandeldask.store"]),
        ("view", "def f():\n    from mandeldask.grid import complex_grid", ["mandeldask.grid.complex_grid"]),
        ("dashboard", "from mandeldask.progress import Bar", ["mandeldask.progress.Bar"]),
        ("kernels", "import dask.array as da", ["dask.array"]),
        ("store", "from distributed import Client", ["distributed.Client"]),
        ("field", "if TYPE_CHECKING:\n    import zarr", ["zarr"]),
        ("job", "import dask, zarr\nfrom mandeldask.store import Store\nfrom mandeldask.job.cost import order", []),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(room, source, found):
    assert trespasses(room, source) == found


def test_the_package_itself_imports_no_room_until_a_name_is_used():
    tree = ast.parse(MODULES["__init__"].read_text())
    assert not any(name.startswith("mandeldask") for node in tree.body for name in imports(node))


def test_of_what_computes_and_writes_only_what_a_notebook_shows_knows_of_pictures():
    jobs = {module: all_imports(source) for module, source in ROOMS.items() if module.partition(".")[0] == "job"}
    drawing = {module for module, names in jobs.items() if any(name.startswith("mandeldask.image") for name in names)}
    assert drawing <= {"job.notebook"}


def cycles(sources):
    """Chains of modules, from name to source, in which each imports the next and the last is the first."""
    graph = {}
    for module, source in sources.items():
        names = {name.removeprefix("mandeldask.") for name in all_imports(source)}
        # `from a import b` depends on the module a.b where there is one, else on a
        graph[module] = {name if name in sources else name.rpartition(".")[0] for name in names} & set(sources)
    found = []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            chain = error.args[1][::-1]
            found.append(" -> ".join(chain))
            graph[chain[0]].remove(chain[1])
        else:
            return found


def test_no_two_modules_import_each_other():
    found = cycles(ROOMS)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("import mandeldask.b", "import mandeldask.a"),
        ("from mandeldask import b", "from mandeldask.a import name"),
        ("def f():\n    from mandeldask.b import name", "from mandeldask import a"),
        ("if TYPE_CHECKING:\n    from mandeldask.b import name", "class A:\n    import mandeldask.a"),
        ("from mandeldask.b import name", "importlib.import_module('mandeldask.a')"),
    ],
)
def test_a_cycle_is_found_wherever_its_imports_stand(a, b):
    (found,) = cycles({"a": a, "b": b, "c": "from mandeldask import a, b"})
    assert found in {"a -> b -> a", "b -> a -> b"}


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "mandeldask", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert imported >= {"click", "mandeldask.cli"}
    heavy = {"numpy", "dask", "distributed", "zarr", "numba", "bokeh", "pydantic", "xarray", "yaml", "rich"}
    assert imported & heavy == set()
    assert "Exit codes" in done.stdout


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, mandeldask; print(*sorted(sys.modules.keys() & {'numpy', 'dask', 'zarr', 'numba'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_public_names():
    assert md.__all__ == [
        "Area",
        "ClusterError",
        "ConfigError",
        "Job",
        "MandeldaskError",
        "Plan",
        "Status",
        "StoreError",
        "Summary",
        "Verification",
        "View",
        "area",
        "complex_grid",
        "deepen",
        "escape_time",
        "find",
        "job",
        "jobs",
        "open",
        "picture",
        "resume",
        "run",
        "status",
        "submit",
        "verify",
    ]
    assert dir(md) == sorted(["__version__", *md.__all__])


@pytest.mark.parametrize("name", md.__all__)
def test_each_public_name_can_be_imported_and_is_documented(name):
    value = getattr(md, name)
    assert callable(value)
    assert value.__doc__
    assert name in dir(md)


def test_a_star_import_gives_the_public_names_and_no_other():
    names = {}
    exec("from mandeldask import *", names)
    assert sorted(names.keys() - {"__builtins__"}) == sorted(md.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mandeldask' has no attribute 'escape_tiem'"):
        md.escape_tiem  # noqa: B018 (to look it up is the test)


def test_the_version_is_that_of_the_project_and_the_changelog_tells_of_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert md.__version__ == project["version"]
    headings = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert md.__version__ in headings


def installed():
    """The distribution of mandeldask, which scripts/test installs."""
    try:
        return importlib.metadata.distribution("mandeldask")
    except importlib.metadata.PackageNotFoundError:
        skip_or_fail("mandeldask is not installed; run scripts/test")


def test_the_version_is_that_of_the_installed_distribution():
    assert md.__version__ == installed().version


def test_dask_runs_mandeldask_as_its_own_command():
    installed()
    command = [sys.executable, "-m", "dask", "mandeldask", "--help"]
    dask = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage: " in dask.stdout
    assert "resume" in dask.stdout


def test_the_example_in_the_package_docstring_is_true():
    results = doctest.testmod(md)
    assert results.attempted >= 4
    assert results.failed == 0
