"""Places of other deep-zoom programs as run descriptions."""

from decimal import Decimal

import pytest
from click.testing import CliRunner

from mandeldask.cli import cli
from mandeldask.config import load
from mandeldask.config.locations import MAX_BYTES, read_location
from mandeldask.errors import ConfigError

RE = (  # Kalles Fraktaler's benchmark place at 5e113
    "-1.999966194450370304184346885063505796755312415407248515117619229448015842423426843813761"
    "29778868913812287046406560949864353810575744772166485672496092803920095332"
)
IM = (
    "0.0000000000000000000000000000000003001382436790938324072497303977592498734683119077333527"
    "0174257280120474975614823581185647299288414075519224186504978181625478529"
)
KFR = f"Re: {RE}\r\nIm: {IM}\r\nZoom: 1E113\r\nIterations: 35494\r\nIterDiv: 0.1\r\nSmoothMethod: 0\r\nRatio: 360\r\n"
TOML = f'''program = "fraktaler-3"
location.real = "{RE}"
location.imag = "{IM}"
location.zoom = "5e113"
bailout.iterations = 35494
image.width = 800
image.height = 400
transform.rotate = 30.0
'''
PLACE = '[location]\nreal = "-1"\nimag = "0"\nzoom = "2"\n'


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_a_location_of_kalles_fraktaler_keeps_every_digit(tmp_path):
    described = read_location(written(tmp_path, "deep.kfr", KFR))
    assert described["view"]["centre"] == [RE, IM]
    assert float(Decimal(described["view"]["span"]) * Decimal("1e113")) == pytest.approx(4 * 1920 / 1080)
    assert described["max_iter"] == 35494


def test_a_location_of_fraktaler_3_has_its_shape_and_rotation(tmp_path):
    view = read_location(written(tmp_path, "whatever it is called", TOML))["view"]
    assert (view["shape"], view["rotation"], Decimal(view["span"])) == ([400, 800], "30.0", Decimal("1.6e-113"))


def test_init_writes_a_description_that_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "deep.kfr", KFR)
    done = CliRunner().invoke(cli, ["init", "--from", "deep.kfr"])
    assert done.exit_code == 0, done.output
    config = load("deep.yaml")
    assert config.view.frame.origin == (RE, IM)
    assert config.store == "deep.zarr"
    again = CliRunner().invoke(cli, ["init", "--from", "deep.kfr"])
    assert again.exit_code == 2
    assert CliRunner().invoke(cli, ["init", "other", "--from", "deep.kfr"]).exit_code == 0


def test_a_location_is_read_to_its_end_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, "deep.kfr", "Zoom: 2\nIterations: 9\nRe: -1." + "7" * 30_000 + "\nIm: 0." + "1" * 40_000)
    assert [len(digits) for digits in read_location(file)["view"]["centre"]] == [30_003, 40_002]
    done = CliRunner().invoke(cli, ["init", "--from", "deep.kfr"])
    assert done.exit_code == 2
    assert "deep.yaml would have 68 KiB, and descriptions of at most 64 are read: cut" in done.stderr
    file.write_text(KFR + "# " + "x" * MAX_BYTES)
    with pytest.raises(ConfigError, match=r"deep.kfr: is no location: that is a file of at most 259 KiB"):
        read_location(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.kfr", KFR.replace("Zoom", "Boom"), "lacks Zoom, and is no location"),
        ("a.kfr", KFR + "Power: 3\r\n", "another set than Mandelbrot's"),
        ("a.kfr", KFR.replace("1E113", "far"), "zoom must be a number"),
        ("a.kfr", KFR.replace("35494", "99999999999"), "max_iter must be at most 2147483647"),
        ("a.kfr", KFR.replace(RE, RE[:60]), r"centre\[0\] has 57 decimals"),
        ("a.toml", TOML.replace("=", ""), "a.toml: is neither a location of"),
        ("a.toml", TOML.replace("location.real", "location.rial"), "lacks real"),
        ("a.toml", TOML + "transform.reflect = true\n", "reflected"),
        ("a.toml", f"transform = 3\n{PLACE}", "a.toml: transform must be a table, as Fraktaler-3 writes it; got 3"),
        ("a.toml", f"image = 3\n{PLACE}", "image must be a table"),
        ("a.toml", f'formula = ["x"]\n{PLACE}', "formula must be a table, .* got 'x'"),
        ("a.toml", f"formula = 3\n{PLACE}", "formula must be a table"),
        ("a.toml", 'location = "x"', "location must be a table"),
        ("a.toml", f"image = {{width = 0, height = 0}}\n{PLACE}", r"shape must be two integers from 1 .* got \(0, 0\)"),
        ("a.toml", f'image = {{width = "a"}}\n{PLACE}', "shape must be two integers"),
        ("a.toml", f"image = {{width = inf}}\n{PLACE}", "shape must be two integers"),
        ("a.toml", PLACE.replace('"2"', "1e9999999999999999999"), "zoom must be finite"),
        ("a.toml", f"a = {'[' * 5000}", "recursion|nested"),
        ("a.txt", "view: {x: [-2, 1]}", "is neither a location of Kalles Fraktaler, nor one of Fraktaler-3"),
    ],
)
def test_what_is_no_location_is_refused_in_a_line(tmp_path, name, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_location(written(tmp_path, name, text))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_location(tmp_path / "none.kfr")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match="is not text"):
        read_location(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Zoom: 0", "zoom must be positive; got 0"),
        ("Zoom: -5", "zoom must be positive; got -5"),
        ("Iterations: 100.5", "iterations must be a whole number; got 100.5"),
        ("Re: abc", "the real part must be a number"),
    ],
)
def test_a_number_that_is_none_is_told_by_its_own_name(tmp_path, line, says):
    good = {"Re": "-1", "Im": "0", "Zoom": "2", "Iterations": "100"}
    key, value = line.split(": ")
    (tmp_path / "a.kfr").write_text("".join(f"{k}: {v}\n" for k, v in (good | {key: value}).items()))
    with pytest.raises(ConfigError, match=says):
        read_location(tmp_path / "a.kfr")
