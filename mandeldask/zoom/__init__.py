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
from mandeldask.image import PictureOptions
from mandeldask.store import Store, open_store
from mandeldask.view import View
from mandeldask.zoom import video
from mandeldask.zoom.film import COLOURS, Film, read_film
from mandeldask.zoom.texture import Pixels, ToColour, to_colour
from mandeldask.zoom.video import check_target, need_av

__all__ = ["COLOURS", "Film", "Made", "check_target", "make", "need_av", "read_film"]


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
    painted: Callable[[int, int], object] | None = None,
) -> Made:
    """Make a film; what an interrupted call computed is not computed again.

    Parameters
    ----------
    out : path ending in .mp4, .mkv or .mov
        Its samples are kept beside it, in a folder of the same name that ends in .zoom: another film of the same
        samples, in other colours, computes nothing.
    kernel, cluster, client : as for `mandeldask.run`
    options : PictureOptions, optional
        Of these colormap, scale (with its rounds) and interior. The scale is laid out for the whole film: an escape
        time has one colour in all frames.
    overwrite : bool
        Replace the samples of another film in that folder.
    tell : callable, optional
        Is given the events of both runs.
    painted : callable, optional
        Called with (frames done, frames), at the start and after each frame.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        One or two lines that say what is wrong and what to do.
    """
    need_av()
    target = check_target(out)
    strip, core = compute(film, target.with_suffix(".zoom"), kernel, cluster, client, overwrite, tell)
    failed = int((~strip.done()).sum() + (~core.done()).sum())
    frames = paint(film, strip, core, to_colour(strip, options or PictureOptions()), painted)
    title = f"Mandelbrot zoom into {film.centre[0]}, {film.centre[1]}, from {film.first} to {film.last}"
    video.write(target, frames, film.size, film.rate, title)
    return Made(os.fspath(target), film.frames, film.strip.size + film.core.size, failed)


def compute(
    film: Film,
    folder: Path,
    kernel: str,
    cluster: AnyCluster | None,
    client: Any,
    overwrite: bool,
    tell: job.Observer,
) -> tuple[Store, Store]:
    """The stores of strip and core, computed as far as they are not."""
    views = {folder / "strip.zarr": film.strip, folder / "core.zarr": film.core}
    held = {path: _holds(path, view, film, overwrite) for path, view in views.items()}
    pending = {path: view for path, view in views.items() if not (held[path] and _complete(open_store(path)))}
    if pending:
        _make_folder(folder)
        with Session(cluster, client=client, say=lambda text: tell(job.Notice(text))) as there:
            for path, view in pending.items():
                config = {"view": view, "max_iter": film.max_iter, "kernel": kernel}
                job.run(config, path, client=there.connect(), tell=tell, overwrite=overwrite and not held[path])
    strip, core = map(open_store, views)
    return strip, core


def _holds(path: Path, view: View, film: Film, overwrite: bool) -> bool:
    """Whether a store is of this field, all of it or a part; StoreError for another film's that is not to go."""
    try:
        there = open_store(path).description
    except StoreError:  # told with its remedy when it is opened for writing
        return False
    if (there.view, there.max_iter) == (view, film.max_iter):
        return True
    if overwrite:
        return False
    what = f"max_iter is {there.max_iter} there, {film.max_iter} here" if there.view == view else "of another view"
    raise StoreError(
        f"{path.parent} holds the samples of another film: {what}. Choose another --out, or replace it with --overwrite"
    )


def _complete(store: Store) -> bool:
    return all(bool(store.done(level.number).all()) for level in store.description.levels)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make {folder} for the film's samples: {error.strerror}; choose another --out"
        ) from None


def paint(
    film: Film,
    strip: Store,
    core: Store,
    colour_of: ToColour,
    painted: Callable[[int, int], object] | None = None,
) -> Iterator[Pixels]:
    """The frames of a film, one after the other: RGB, shape (height, width, 3)."""
    try:
        from mandeldask.zoom.painter import Painter
    except ImportError as error:
        raise ConfigError(f"a film needs Numba, which cannot be imported here ({error}); install it") from None
    if painted:
        painted(0, film.frames)
    painter = Painter(film, strip, core, colour_of)
    for frame in range(film.frames):
        yield painter.paint(film.span(frame))
        if painted:
            painted(frame + 1, film.frames)
