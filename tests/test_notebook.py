"""What IPython shows, by its own formatter: the same as in a notebook."""

import base64
import io
import re

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel
from PIL import Image
from services import DEADLINE, Processes
from test_image import ALL, field, stored

import mandeldask as md


@pytest.fixture(scope="module")
def shell():
    shell = InteractiveShell.instance()
    yield shell
    InteractiveShell.clear_instance()


def shown(shell, code, **names):
    """What the last line of a cell is shown as: MIME type -> data."""
    shell.push({"md": md, **names})
    result = shell.run_cell(code)
    result.raise_error()
    return shell.display_formatter.format(result.result)[0]


def opened(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.array(picture.convert("RGB"))


THINGS = {
    "a path": "md.picture(path, shade='counts')",
    "an opened field": "md.picture(md.open(path), max_iter=50)",
    "a Dask array": "md.picture(md.escape_time(md.complex_grid(view), 50), max_iter=50)",
    "a view": "md.picture(view, max_iter=50, size=300, shade='counts')",
}


@pytest.mark.parametrize("code", THINGS.values(), ids=THINGS)
def test_a_field_is_shown_in_one_line(shell, tmp_path, code):
    store = stored(tmp_path / "a.zarr", (200, 300), (128, 128))
    data = shown(shell, code, path=store.path, view=store.description.view)
    assert data["text/plain"].startswith("<Picture of 300 x 200 pixels")
    md.picture(store.path, shade="counts").save(tmp_path / "a.png")
    assert np.array_equal(opened(data["image/png"]), opened((tmp_path / "a.png").read_bytes()))


def test_a_view_is_shown_with_any_look_and_as_deep_as_asked(shell):
    view = md.View.around(("-0.7445", "0.122"), "0.012", (4000, 6000))
    data = shown(shell, "md.picture(view, max_iter=300, size=120, shade='smooth', light=(315, 45))", view=view)
    picture = opened(data["image/png"])
    assert picture.shape == (84, 125, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_a_large_picture_is_shown_small(shell):
    data = shown(shell, "md.picture(counts)", counts=np.tile(field(128, 128), (32, 32)))
    assert opened(data["image/png"]).shape == (1024, 1024, 3)


def test_a_plan_and_a_summary_show_picture_size_tiles_and_progress(shell, client, tmp_path):
    events = []
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [80, 120]}, "max_iter": 30, "tile": [40, 60]}
    summary = md.run(config, tmp_path / "a <b>.zarr", client=client, tell=events.append)
    page = shown(shell, "summary", summary=summary)["text/html"]
    assert "4 tiles in" in page and '<progress value="4" max="4"' in page
    assert "a &lt;b&gt;.zarr" in page and "<b>" not in page
    assert opened(base64.b64decode(re.search('data:image/png;base64,([^"]+)', page)[1])).shape == (80, 120, 3)
    plan = next(event for event in events if isinstance(event, md.Plan))
    page = shown(shell, "plan", plan=plan)["text/html"]
    assert "80 x 120 = 9.6 k samples, max_iter 30" in page and "4 to compute" in page and "<img" not in page
    again = []
    md.run(config, tmp_path / "a <b>.zarr", client=client, tell=again.append)
    assert "<img" in shown(shell, "plan", plan=again[1])["text/html"]


def test_a_summary_whose_store_is_gone_is_shown_without_a_picture(shell, client, tmp_path):
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [80, 120]}, "max_iter": 30}
    summary = md.run(config, tmp_path / "a.zarr", client=client)
    (tmp_path / "a.zarr/zarr.json").unlink()
    page = shown(shell, "summary", summary=summary)["text/html"]
    assert "1 tile in" in page and "<img" not in page


def test_an_array_of_more_fields_is_drawn_with_them(shell):
    data = shown(shell, "md.picture(fields, shade='distance')", fields=field(60, 90, fields=ALL))
    assert opened(data["image/png"]).shape == (60, 90, 3)


@pytest.fixture(scope="module")
def kernel():
    """What a cell shows in a real kernel: the MIME bundles that it displays, each update of them, and its result."""
    manager, cells = start_new_kernel()

    def run(code):
        shown = []

        def take(message):
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            if "data" in message["content"]:
                shown.append((message["msg_type"], message["content"]["data"]))

        cells.execute_interactive(code, output_hook=take, timeout=DEADLINE)
        return shown

    yield run
    cells.stop_channels()
    manager.shutdown_kernel(now=True)


WATCHED = """if True:
    import mandeldask as md, numpy as np
    from distributed import Client
    from mandeldask.job import cell
    cell.SHOW_SECONDS = 0  # every update, however fast the machine
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [80, 120]}, "max_iter": 30, "tile": [20, 30]}
"""


def progress(shown):
    """Of each update, the number of tiles that are done."""
    return [int(re.search('<progress value="([0-9]+)" max="16"', data["text/html"])[1]) for _, data in shown]


def test_a_cell_shows_a_run_and_a_job_with_the_picture_as_it_forms(kernel, tmp_path):
    kernel(WATCHED)
    with Processes(tmp_path / "dask", workers=1) as dask:
        kernel(f"client = Client({dask.address!r})")
        shown = kernel(f"summary = md.run(config, {str(tmp_path / 'a.zarr')!r}, client=client)")
        assert [kind for kind, _ in shown] == ["display_data"] + ["update_display_data"] * (len(shown) - 1)
        done = progress(shown[-16:])
        assert done == sorted(done) and done[-1] == 16
        pictures = [re.findall('data:image/png;base64,([^"]+)', data["text/html"]) for _, data in shown]
        assert not pictures[0] and len({tuple(p) for p in pictures}) > 10, "it forms"
        assert opened(base64.b64decode(pictures[-1][0])).shape == (80, 120, 3)
        ((_, result),) = kernel("summary")
        assert "<img" not in result["text/html"] and "16 tiles in " in result["text/html"], "the picture is there once"
        assert 'href="http://127.0.0.1' in shown[-2][1]["text/html"] and "16/16 tiles in " in shown[-1][1]["text/html"]

        begin = f"job = md.submit(config, {str(tmp_path / 'b.zarr')!r}, client=client, name='seen'); job"
        ((kind, data),) = kernel(begin)
        assert kind == "execute_result" and "&lt;" not in data["text/html"]
        assert data["text/plain"].startswith("<Job seen: ") and "seen" in data["text/html"]
        shown = kernel("ended = job.wait()")
        assert progress(shown)[-1] == 16 and "finished: 16/16 tiles" in shown[-1][1]["text/html"]
        (last,) = re.findall('data:image/png;base64,([^"]+)', shown[-1][1]["text/html"])
        assert np.array_equal(opened(base64.b64decode(last)), opened(base64.b64decode(pictures[-1][0])))
        assert kernel("quiet = md.run(config, str(job.store), client=client, tell=lambda event: None)") == []
