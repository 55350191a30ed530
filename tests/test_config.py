import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mandeldask as md
from mandeldask.config import Config, json_schema, load, parse
from mandeldask.config.reading import MAX_BYTES
from mandeldask.errors import ConfigError
from mandeldask.kernels import KERNELS
from mandeldask.view import Deep, View

CONFIGS = Path(__file__).parents[1] / "configs"
DEEP = sorted(CONFIGS.glob("deep/*.yaml"))
MINIMAL = "view: {x: [-2, 1], y: [-1.5, 1.5], shape: [20, 30]}\nmax_iter: 100\n"


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """Writes a run description, as text or bytes, and gives its path."""
    path = tmp_path_factory.mktemp("config") / "run.yaml"

    def write(content: str | bytes) -> Path:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(file, content, *overrides):
    """The message `load` refuses with: every line short, printable and naming the file."""
    with pytest.raises(ConfigError) as caught:
        load(file(content), overrides)
    lines = str(caught.value).split("\n")
    assert len(lines) <= 6
    assert all(line.isprintable() and len(line) <= 500 for line in lines)
    return str(caught.value)


@pytest.mark.parametrize("path", [*sorted(CONFIGS.glob("*.yaml")), *DEEP], ids=lambda path: path.stem)
def test_every_config_we_ship_loads_and_is_resolved_by_its_arithmetic(path):
    config = load(path)
    config.view.check_resolved()
    assert (path in DEEP) == isinstance(config.view.frame, Deep)
    assert config.store == f"{path.stem}.zarr"
    schema = "../schema.json" if path in DEEP else "schema.json"
    assert path.read_text().startswith(f"# yaml-language-server: $schema={schema}\n")


def test_the_deep_views_go_from_1e_20_to_below_1e_300():
    spans = sorted(Decimal(load(path).view.given["span"][0]) for path in DEEP)
    assert len(spans) == 5
    assert spans[0] < Decimal("1e-300")
    assert Decimal("1e-21") < spans[-1] < Decimal("1e-19")


def test_a_deep_view_comes_back_from_a_dump_and_a_key_set_drops_its_unit():
    frame = Deep(("-1.25", "0.1"), -300, "30")
    config = parse({"view": View((-1, 1), (-0.5, 0.5), (20, 30), "pixel", frame), "max_iter": 100})
    assert parse(config.model_dump()) == config
    assert parse(config.model_dump(), overrides=["view.unit=-301"]).view.frame.unit == -301
    moved = parse(config.model_dump(), overrides=["view.centre=[0,0]", "view.span=1e-3"])
    assert moved.view == View.around((0, 0), "1e-3", (20, 30), "pixel", rotation=30)


def test_the_lesson_is_the_lesson():
    config = load(CONFIGS / "lesson.yaml")
    assert config.view == View((-2, 1), (-1.5, 1.5), (1000, 1000), "gridline")
    assert (config.max_iter, config.kernel, config.tile, config.fields) == (
        100,
        "numpy",
        (500, 500),
        ("escape_time",),
    )
    assert (config.cluster.workers, config.cluster.threads_per_worker, config.cluster.memory_limit) == (
        4,
        1,
        None,
    )


def test_the_american_spelling_of_centre_is_read_too(file):
    described = "view: {%s: ['0.10', 0.2], span: 1, shape: [20, 30]}\nmax_iter: 9\n"
    assert load(file(described % "center")) == load(file(described % "centre"))
    changed = load(file(MINIMAL), ["view.center=['0.10',0.2]", "view.span=1"])
    assert changed.view == View.around(center=("0.10", 0.2), span=1, shape=(20, 30))
    both = "centre and center are the same key; give one of them"
    assert both in refusal(file, "view: {centre: [0, 0], center: [0, 0], span: 1, shape: [4, 4]}\nmax_iter: 9\n")
    with pytest.raises(ConfigError, match=both):
        View.around(centre=(0, 0), center=(0, 0), span=1, shape=(4, 4))


def test_the_schema_for_editors_is_current():
    """If it is not: write out json.dumps(mandeldask.config.json_schema(), indent=2)."""
    assert json.loads((CONFIGS / "schema.json").read_text()) == json_schema()


def test_defaults(file):
    config = load(file(MINIMAL))
    assert config.view == View((-2, 1), (-1.5, 1.5), (20, 30))
    assert (config.kernel, config.fields, config.tile, config.store) == (
        "auto",
        ("escape_time",),
        None,
        None,
    )
    assert config.cluster is None


def test_a_config_is_frozen_and_hashable(file):
    config = load(file(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.max_iter = 5
    assert hash(config) == hash(load(file(MINIMAL)))


def test_the_import_is_light():
    """What --help waits for: no Dask, Zarr or Numba."""
    heavy = "{'dask', 'distributed', 'zarr', 'numba', 'bokeh'} & set(sys.modules)"
    code = f"import sys, mandeldask.config; print({heavy} or 'light')"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "light\n"


# Values


@pytest.mark.parametrize("span", ["1e-5", "'1e-5'", '"0.00001"', "1.e-5", ".00001", "+1E-05"])
def test_a_coordinate_is_the_same_however_it_is_written(file, span):
    text = f"view: {{centre: [-0.743643887037151, '0.1'], span: {span}, shape: [7, 9]}}\nmax_iter: 10"
    assert load(file(text)).view == View.around(("-0.743643887037151", "0.1"), "1e-5", (7, 9))


def test_a_bare_coordinate_keeps_digits_that_no_float_holds(file):
    text = "view: {centre: [-0.74364388703715100000000001, 0], span: 1, shape: [7, 9]}\nmax_iter: 10"
    assert load(file(text)).view.given["centre"][0] == "-0.74364388703715100000000001"


@pytest.mark.parametrize("value", ["100000", "1e5", "100000.0", "1.0e+5"])
def test_an_integer_may_be_written_with_an_exponent(file, value):
    config = load(file(MINIMAL), [f"max_iter={value}"])
    assert config.max_iter == 100_000
    assert isinstance(config.max_iter, int)


@pytest.mark.parametrize("size", ["4GiB", "4 GiB", "1.5e9", "500MB", "2000000000", "'100'", "0.5 TB"])
def test_memory_limits_are_sizes_that_dask_reads(file, size):
    from dask.utils import parse_bytes

    limit = load(file(MINIMAL), [f"cluster.memory_limit={size}"]).cluster.memory_limit
    assert parse_bytes(limit) == parse_bytes(size.strip("'"))


# Refusals: (what is added to a good file, what the message says)
BAD = {
    "an unknown key": (
        "kernal: numba",
        "run.yaml: unknown key `kernal`; did you mean `kernel`?",
    ),
    "a key of another section": ("shape: [5, 5]", "did you mean `view.shape`?"),
    "a nested unknown key": ("cluster: {worker: 2}", "unknown key `cluster.worker`; did you mean `workers`?"),
    "an unknown kernel": (
        "kernel: opencl",
        "kernel must be numpy, numpy-compact, numba, cuda, deep or auto; got 'opencl'",
    ),
    "a kernel that is no text": ("kernel: 5", "kernel must be text"),
    "an unknown field": (
        "fields: [colour]",
        "fields[0] must be 'escape_time', 'smooth', 'distance' or 'interior'; got 'colour'",
    ),
    "a field twice": ("fields: [escape_time, escape_time]", "nothing twice"),
    "no field": ("fields: []", "must hold escape_time"),
    "a tile of one side": ("tile: [5]", "tile must be two numbers; got [5]"),
    "a tile of three": ("tile: [5, 5, 5]", "tile must be two numbers; got [5, 5, 5]"),
    "a tile that is no list": ("tile: 500", "tile must be a list; got 500"),
    "an empty tile": ("tile: [0, 5]", "tile[0] must be at least 1; got 0"),
    "half a sample": ("tile: [1.5, 5]", "tile[0] must be an integer; got 1.5"),
    "another cluster": ("cluster: {kind: slum}", "cluster: kind must be one of 'local', 'address', "),
    "a cluster that is no mapping": ("cluster: local", "cluster must be a mapping"),
    "no workers": ("cluster: {workers: 0}", "cluster.workers must be at least 1; got 0"),
    "workers by a word": ("cluster: {workers: yes}", "cluster.workers must be an integer; got 'yes'"),
    "threads that are a boolean": ("cluster: {threads_per_worker: true}", "must be an integer; got True"),
    "a strange unit": ("cluster: {memory_limit: 4 GoB}", "must be a size above zero, such as 4GiB; got '4 GoB'"),
    "no memory": ("cluster: {memory_limit: 0GB}", "cluster.memory_limit must be a size above zero"),
    "infinite memory": ("cluster: {memory_limit: 1e99}", "cluster.memory_limit must be a size above zero"),
    "a store that is a number": (
        "store: 5",
        "store must be text (in quotes if it looks like a number); got 5",
    ),
    "a store without name": ("store: ''", "store must be a path"),
    "a store with a control character": (r'store: "a\e[31m"', r"got 'a\x1b[31m'"),
    "a long value": (f"store: [{'a' * 60_000}]", "aaa...aaa"),
    "a long key": (f"? {'a' * 60_000}\n: 5", "aaa...aaa"),
    "a key twice": ("max_iter: 200", "line 3, column 1: the key max_iter is given twice"),
    "a key that is a number": ("5: 5", "line 3, column 1: keys must be words; got 5"),
    "a key that is a list": ("[a]: 5", "keys must be words; got ['a']"),
    "a merge key": ("<<: {tile: [5, 5]}", "unknown key `<<`"),
    "an anchor": ("store: &a x", "anchors, aliases and tags (&, * and !) are not allowed"),
    "an alias": ("store: *a", "anchors, aliases and tags (&, * and !) are not allowed"),
    "a tag that runs code": (
        "store: !!python/object/apply:os.getcwd []",
        "line 3, column 8: anchors, aliases and tags",
    ),
    "a harmless tag": ("store: !!str 5", "anchors, aliases and tags"),
    "deep nesting": ("store: " + "[" * 20_000, "nested too deep"),
    "two documents": ("---\nstore: x", "expected a single document"),
    "no YAML": ("store: a: b", "line 3, column 9: mapping values are not allowed here"),
    "a character beyond Unicode": (r'store: "\UFFFFFFFF"', "is not YAML"),
}


@pytest.mark.parametrize(("extra", "message"), BAD.values(), ids=BAD)
def test_refused_with_rule_value_and_remedy(file, extra, message):
    assert message in refusal(file, MINIMAL + extra)


BAD_VALUES = {
    "max_iter=0": "max_iter must be at least 1; got 0",
    "max_iter=2147483648": "max_iter must be at most 2147483647; got 2147483648",
    "max_iter=1e30": "max_iter must be at most 2147483647",
    "max_iter=1e-1": "max_iter must be an integer; got 0.1",
    "max_iter='100'": "max_iter must be an integer; got '100'",
    "max_iter=true": "max_iter must be an integer; got True",
    "max_iter=": "max_iter must be an integer; got None",
    "max_iter=1_000": "max_iter must be an integer; got '1_000'",
    "view=": "view must be a mapping, KEY: VALUE; got None",
    "view={}": "view.shape is missing",
    "view.shape=5": "view.shape must be a list; got 5",
    "view.shape=[5]": "view.shape must be two numbers; got [5]",
    "view.shape=300,400": "view.shape must be a list, in brackets (--set 'view.shape=[300,400]'); got '300,400'",
    "view.shape=[5, 0]": "view.shape[1] must be at least 1; got 0",
    "view.shape=[5, 1e10]": "view.shape[1] must be at most 2147483647",
    "view.x=[.nan, 1]": "view: x[0] must be a number or a decimal string; got '.nan'",
    "view.x=[-.inf, 1]": "view: x[0] must be",
    "view.x=[false, 1]": "view: x[0] must be a number or a decimal string; got False",
    "view.x=['0x1', 1]": "view: x[0] must be a number or a decimal string; got '0x1'",
    "view.x=[1e99999999999999999999, 1]": "view: x[0]",
    "view.x=[1e20000, 1]": "view: x[0] is out of range",
    "view.x=[1, 1]": "view: x must ascend, low < high; got [1, 1]",
    "view.span=1": "view: needs x and y; or centre and span",
    "view.registration=pixels": "view.registration must be 'gridline' or 'pixel'; got 'pixels'",
    "view.kernel=numpy": "unknown key `view.kernel`; did you mean `kernel`?",
    "view.zoom=2": "unknown key `view.zoom`; there are x, y, centre, span",
    "viw.shape=[5, 5]": "unknown key `viw`; did you mean `view`?",
}


@pytest.mark.parametrize("override", BAD_VALUES)
def test_a_bad_override_names_file_and_key(file, override):
    message = refusal(file, MINIMAL, override)
    assert "run.yaml with --set: " + BAD_VALUES[override] in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_iter", "--set takes KEY=VALUE, such as 'view.shape=[4096,4096]'; got 'max_iter'"),
        ("=5", "--set takes KEY=VALUE"),
        ("view..x=5", "--set takes KEY=VALUE"),
        ("max_iter.x=5", "--set max_iter.x: max_iter has no keys of its own"),
        ("tile=[5", "--set tile, line 1, column 3: while parsing a flow sequence"),
        ("store=\udc80", "--set store: is not YAML in UTF-8"),
        ("store=*a", "--set store, line 1, column 1: anchors, aliases"),
    ],
)
def test_an_override_that_cannot_be_read(file, override, message):
    assert message in refusal(file, MINIMAL, override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a run description needs at least view and max_iter"),
        (b"# nothing\n", "is empty"),
        (b"null", "is empty"),
        (b"[1, 2]", "must be a mapping, KEY: VALUE; got [1, 2]"),
        (b"5", "must be a mapping"),
        (b"{}", "view is missing"),
        (b"\xff\xfev\x00", "is not YAML in UTF-8: invalid start byte"),
        (b"PK\x03\x04\x00\x00", "is not YAML in UTF-8: special characters are not allowed"),
        (b"\x00", "is not YAML"),
        (b"%YAML 1." + b"1" * 5000 + b"\n---\na: 5", "is not YAML"),
        (MINIMAL.encode() + b"#" * MAX_BYTES, "no description: that is a YAML file of at most 64 KiB"),
        (b"{" * 60_000, "nested too deep"),
        (b"? " * 30_000, "nested too deep"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_is_no_run_description(file, content, message):
    assert message in refusal(file, content)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(file):
    assert load(file("\ufeff" + MINIMAL.replace("\n", "\r\n"))) == load(file(MINIMAL))


def test_a_path_that_cannot_be_read(tmp_path):
    for path, reason in (
        (tmp_path, "must be a YAML file, and is a folder"),
        (tmp_path / "no.yaml", "cannot be read: .*No such file"),
        ("a\0\n", "cannot be read: .*null"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            load(path)
        assert str(caught.value).isprintable()


def test_several_errors_are_told_at_once_but_no_more_than_five(file):
    assert len(refusal(file, MINIMAL, "max_iter=0", "kernel=x", "tile=5").split("\n")) == 3
    many = refusal(file, "".join(f"key{i}: 5\n" for i in range(50)))
    assert many.endswith("run.yaml: and 47 more")


# Overrides


def test_an_override_replaces_one_key_and_leaves_the_rest():
    lesson, path = load(CONFIGS / "lesson.yaml"), CONFIGS / "lesson.yaml"
    config = load(path, ["view.shape=[4096,4096]", "view.registration = pixel", "tile=null", "store=~/a b.zarr"])
    assert config.view == View(lesson.view.x, lesson.view.y, (4096, 4096), "pixel")
    assert (config.tile, config.store) == (None, "~/a b.zarr")
    assert (config.max_iter, config.kernel, config.cluster) == (
        lesson.max_iter,
        lesson.kernel,
        lesson.cluster,
    )


def test_an_override_makes_the_section_it_needs_and_the_last_one_wins(file):
    assert load(file(MINIMAL), ["cluster.workers=2", "cluster.workers=3"]).cluster.workers == 3


def test_centre_and_span_set_on_bounds_replace_them_and_the_reverse(file):
    around = load(file(MINIMAL), ["view.centre=[-1, 0]", "view.span=1"])
    assert around.view == View.around((-1, 0), 1, (20, 30))
    file("view: {centre: [0, 0], span: 1, shape: [20, 30]}\nmax_iter: 100")
    path = file("view: {centre: [0, 0], span: 1, shape: [20, 30]}\nmax_iter: 100")
    assert load(path, ["view.x=[-1, 1]", "view.y=[0, 1]"]).view == View((-1, 1), (0, 1), (20, 30))
    assert load(path, ["view.span=2"]).view == View.around((0, 0), 2, (20, 30))


def test_both_kinds_of_view_set_at_once_are_refused(file):
    both = refusal(file, MINIMAL, "view.centre=[0, 0]", "view.span=1", "view.x=[-2, 1]", "view.y=[0, 1]")
    assert "has x, y, centre, span" in both


# Python


def test_parse_takes_a_view_and_python_numbers():
    view = View((-2, 1), (-1.5, 1.5), (20, 30))
    assert parse({"view": view, "max_iter": 100.0, "tile": (5, 5)}).view is view
    assert (
        parse({"view": {"x": (-2, 1.0), "y": ("-1.5", Decimal("1.5")), "shape": (20, 30)}, "max_iter": 5}).view == view
    )


def test_parse_names_its_source():
    with pytest.raises(ConfigError, match=r"^the dict: max_iter is missing"):
        parse({"view": View((-2, 1), (-1.5, 1.5), (20, 30))}, "the dict")


numbers = st.decimals(-10, 10, allow_nan=False, allow_infinity=False, places=6)
views = st.fixed_dictionaries(
    {"shape": st.lists(st.integers(2, 2**31 - 1), min_size=2, max_size=2)},
    optional={"registration": st.sampled_from(["gridline", "pixel"])},
)
bounds = st.tuples(numbers, numbers).filter(lambda b: b[0] < b[1]).map(lambda b: [str(v) for v in b])
placed = st.one_of(
    st.builds(lambda view, x, y: view | {"x": x, "y": y}, views, bounds, bounds),
    st.builds(
        lambda view, re, im, span: view | {"centre": [str(re), str(im)], "span": str(span)},
        views,
        numbers,
        numbers,
        st.decimals("0.001", 10, places=6),
    ),
)
descriptions = st.fixed_dictionaries(
    {"view": placed, "max_iter": st.integers(1, 2**31 - 1)},
    optional={
        "kernel": st.sampled_from(sorted(KERNELS)),
        "tile": st.none() | st.lists(st.integers(1, 5000), min_size=2, max_size=2),
        "cluster": st.fixed_dictionaries(
            {}, optional={"workers": st.none() | st.integers(1, 99), "memory_limit": st.just("2GiB")}
        ),
        "store": st.none() | st.text(st.characters(categories=["L", "N", "P"]), min_size=1),
    },
)


@given(descriptions)
def test_dict_file_overrides_and_dump_give_the_same_config(file, description):
    config = parse(description)
    assert load(file(json.dumps(description, ensure_ascii=False))) == config
    assert parse(config.model_dump()) == config
    again = parse(json.loads(config.model_dump_json()))
    assert again == config
    assert again.view.given == config.view.given
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in description.items()]
    assert load(file(MINIMAL), overrides) == config


def loads_or_is_refused(path, *overrides):
    """Anything but a ConfigError fails the test."""
    message = ""
    try:
        load(path, overrides)
    except ConfigError as error:
        message = str(error)
    assert message.replace("\n", "").isprintable()


@given(st.text())
@example("\ud800".encode("utf-16", "surrogatepass").decode("latin-1"))
def test_any_text_loads_or_is_refused(file, text):
    loads_or_is_refused(file(text.encode(errors="replace")))


@given(st.binary())
def test_any_bytes_load_or_are_refused(file, data):
    loads_or_is_refused(file(data))


yamlish = st.lists(
    st.sampled_from([*"[]{},:?-&*!|>'\"%@` \n\t#~", *"019eE.+", "view", "x", "shape", ": ", "- ", "---", "\\U", "\\x"])
).map("".join)


@given(yamlish, st.integers(0, len(MINIMAL)), st.integers(0, 20))
def test_any_damage_to_a_file_is_refused_or_harmless(file, patch, at, length):
    loads_or_is_refused(file(MINIMAL[:at] + patch + MINIMAL[at + length :]))


@given(
    st.text() | yamlish,
    st.sampled_from(["view", "view.x", "view.span", "max_iter", "store", "cluster.workers", ""]),
)
def test_any_override_is_taken_or_refused(file, text, key):
    loads_or_is_refused(file(MINIMAL), f"{key}={text}")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.binary()
    | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)
keys = st.sampled_from([*Config.model_fields, "centre"]) | st.text() | st.integers()
view_keys = st.sampled_from(["x", "y", "centre", "span", "shape", "registration"])


@given(st.dictionaries(keys, anything) | anything, st.dictionaries(view_keys, anything))
def test_any_python_value_is_taken_or_refused(mapping, view):
    for value in (mapping, {"view": view, "max_iter": 5}):
        message = ""
        try:
            parse(value)
        except ConfigError as error:
            message = str(error)
        assert message.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: md.run("lesson", "a.zarr", client="tcp://127.0.0.1:8786"), "client must be .*cluster="),
        (lambda: md.jobs(object()), "cluster must be the address .*client="),
        (lambda: md.submit("lesson", "a.zarr", cluster=7), "cluster must be the address .* got 7"),
        (lambda: md.run(5), "config must be the path of a YAML file.* got 5"),
        (lambda: md.run("lesson", {"max_iter": 5}), "out must be the path of a store.*overrides"),
        (lambda: md.run("lesson", "a.zarr", overrides="max_iter=5"), "overrides must be a list of KEY=VALUE"),
        (lambda: md.run("lesson", "a.zarr", overrides=[5]), "an override must be KEY=VALUE"),
        (lambda: md.find(md.View((0, 1), (0, 1), (9, 9)), 1.5), "max_period must be a whole number; got 1.5"),
        (lambda: md.open(3), "store must be a path or a URL; got 3"),
        (lambda: md.complex_grid((-2, 1), chunks=5), "view must be a mandeldask.View"),
        (lambda: md.find((-2, 1), 5), "view must be a mandeldask.View"),
        (lambda: md.picture(3), "or the path of a store; got 3"),
    ],
)
def test_an_argument_of_another_type_is_named_with_what_it_takes(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
