"""A film that zooms into a point. Each sample is computed once, whatever the number of frames that show it.

The samples of a film lie in two ordinary stores, computed like any other field, on any cluster, and resumed:

- a log-polar strip around the centre. A zoom only shifts it along its rows, so it serves all frames, and a pixel
  averages the same number of samples in every frame: the film does not pulse as one between keyframes would;
- a core, the last frame at twice its resolution, for what lies within the strip's inner circle.

Each frame looks its pixels up in both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mandeldask import job
from mandeldask.cluster import Session
from mandeldask.config import AnyCluster
from mandeldask.errors import ConfigError, StoreError
from mandeldask.image import PictureOptions, check_path
from mandeldask.image.files import Pixels, replacing
from mandeldask.store import Description, Store, open_store
from mandeldask.text import option, pip_install
from mandeldask.zoom.film import COLOURS, Film, read_film

__all__ = ["COLOURS", "Film", "Made", "check_target", "make", "paint", "read_film"]

ENCODER = "libx264"
QUALITY = "18"  # constant rate factor of x264: 18 counts as visually lossless
SUFFIXES = (".mp4", ".mkv", ".mov")


@dataclass(frozen=True)
class Made:
    """A film that was made."""

    path: str
    frames: int
    samples: int  # computed, in this run and before
    failed: int  # tiles of the strip and the core that were given up


def make(
    film: Film,
    out: str | os.PathLike[str],
    *,
    kernel: str = "auto",
    cluster: AnyCluster | None = None,
    client: Any = None,
    options: PictureOptions | None = None,
    overwrite: bool = False,
    tell: job.Observer = job.ignore,
    painted: Callable[[int, int], object] = lambda *_: None,
) -> Made:
    """Make a film, `out` ending in .mp4, .mkv or .mov; what an interrupted call computed is not computed again.

    Its samples are kept beside it, in a folder of the same name that ends in .zoom: another film of the same samples,
    in other colours, computes nothing. Samples of another film are replaced only to `overwrite`.

    Of the options all but size and supersample count. The scale is laid out for the whole film: an escape time has one
    colour in all frames. `tell` is given the events of both runs, `painted` is called with (frames
    done, frames) at the start and after each frame; the others are as for `mandeldask.run`.
    """
    target = check_target(out)
    options = options or PictureOptions()
    described = film.described(options.shade) | {"kernel": kernel}
    strip, core = _compute(film, described, target.with_suffix(".zoom"), cluster, client, overwrite, tell)
    failed = sum(there.tiles - there.done for there in map(job.status, (strip.path, core.path)))
    _encode(target, paint(film, strip, core, options, painted), film)
    return Made(os.fspath(target), film.frames, film.strip.size + film.core.size, failed)


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path of a film to be written; ConfigError where none can be."""
    _need_av()
    return check_path(path, "a film", SUFFIXES)


def _need_av() -> Any:
    """The module av; ConfigError where it is missing, or was built without the encoder."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f"a film needs PyAV, which cannot be imported here ({error}); {pip_install('zoom')}"
        ) from None
    if ENCODER not in av.codecs_available:
        raise ConfigError(
            f"a film needs a PyAV with the encoder {ENCODER}, as PyPI's wheels have it; this one lacks it"
        )
    return av


def _compute(
    film: Film,
    described: dict[str, Any],
    folder: Path,
    cluster: AnyCluster | None,
    client: Any,
    overwrite: bool,
    tell: job.Observer,
) -> tuple[Store, Store]:
    """The stores of strip and core, computed as far as they are not."""
    # the core is a hundredth of the samples, and shows whether the way there leads to anything
    views = {folder / "core.zarr": film.core, folder / "strip.zarr": film.strip}
    held = {path: _reusable(path, described | {"view": view}, overwrite) for path, view in views.items()}
    pending = [path for path, store in held.items() if not (store and job.status(path).levels == 0)]
    if pending:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            problem = f"cannot make {folder} for the film's samples: {error.strerror}; choose another path"
            raise StoreError(problem) from None
        with Session(cluster, client=client, say=lambda text: tell(job.Notice(text))) as there:
            for path in pending:
                config, store = described | {"view": views[path]}, held[path]
                if store:
                    config["fields"] = store.description.fields
                if path.name == "strip.zarr" and film.arithmetic == "exact":
                    _check_seen(open_store(folder / "core.zarr"))
                job.run(config, path, client=there.connect(), tell=tell, overwrite=overwrite and not store)
    core, strip = map(open_store, views)
    return strip, core


def _check_seen(core: Store) -> None:
    """Refuse a deep film whose last frame has one colour, before its strip takes hours."""
    tiles, max_iter = core.read_tiles(), core.description.max_iter
    least, most = int(tiles["minimum"].min()), int(tiles["maximum"].max())
    if not least == most > 0:
        return
    if most == max_iter:
        seen = f"no sample of the last frame escapes within max_iter {most}: give more, or another centre"
    else:
        seen = f"all samples of the last frame escape at step {most}, far from the set: "
        seen += "give more digits of the centre, or a wider last span"
    raise ConfigError(f"{seen}, and {option('overwrite')}")


def _reusable(path: Path, described: dict[str, Any], overwrite: bool) -> Store | None:
    """The store of this field, or of a part of it; StoreError for another film's that is not to go."""
    try:
        store = open_store(path)
    except StoreError:  # told with its remedy when it is opened for writing
        return None
    there, fields = store.description, described.get("fields", ())
    kept = there.fields if set(fields) <= set(there.fields) else fields
    wanted = Description.of(described["view"], described["max_iter"], kept, there.tile, described.get("proof", "full"))
    different = there.differences(wanted)
    if not different:
        return store
    if overwrite:
        return None
    raise StoreError(
        f"{path.parent} holds the samples of another film: {'; '.join(different)}. Choose another path, or replace it "
        f"with {option('overwrite')}"
    )


def paint(
    film: Film,
    strip: Store,
    core: Store,
    options: PictureOptions,
    painted: Callable[[int, int], object] = lambda *_: None,
) -> Iterator[Pixels]:
    """The frames of a film, one after the other: RGB, shape (height, width, 3)."""
    try:
        from mandeldask.zoom.painter import Painter
    except ImportError as error:
        raise ConfigError(f"a film needs Numba, which cannot be imported here ({error}); install it") from None
    painted(0, film.frames)
    painter = Painter(film, strip, core, options)
    for frame in range(film.frames):
        yield painter.paint(film.span(frame))
        painted(frame + 1, film.frames)


def _encode(target: Path, frames: Iterator[Pixels], film: Film) -> None:
    """Encode frames as H.264, yuv420p, BT.709; the film appears whole or not at all. StoreError: the disk is full."""
    av = _need_av()
    with replacing(target) as partial, av.open(os.fspath(partial), "w", options={"movflags": "+faststart"}) as out:
        centre = f"{film.centre[0]}, {film.centre[1]}"
        out.metadata["title"] = f"Mandelbrot zoom into {centre}, from {film.first} to {film.last}"
        out.metadata["encoded_by"] = "mandeldask"
        stream = out.add_stream(ENCODER, rate=film.rate, options={"crf": QUALITY})
        stream.width, stream.height = film.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", src_colorspace="ITU709", dst_colorspace="ITU709")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
