"""What IPython shows, by its own formatter: the same as in a notebook."""

import base64
import io
import re

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
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
