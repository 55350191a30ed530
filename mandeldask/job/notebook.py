"""The HTML by which a notebook shows a run or a job: facts, a bar, and the picture."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import MandeldaskError
from mandeldask.image import Picture, picture
from mandeldask.text import plural

SIDE = 240  # pixels of the picture of a store
FORMING_SIDE = 360  # at most, of one that forms
CELL = "text-align:left"  # a notebook has numbers in mind
MAX_READ = 2**26  # samples; an unfinished field lacks its coarse levels, so a picture of it may have to read more


def block(store: str | None, facts: Mapping[str, str], done: int, tiles: int) -> str:
    """The facts and a progress bar, with the picture of `store` where there is one to show."""
    return with_image(_stored(store) if store else "", facts, done, tiles)


def with_image(image: str, facts: Mapping[str, str], done: int, tiles: int, words: str = "") -> str:
    """The facts and a progress bar beside an image; `words` say how far it is."""
    rows = "".join(
        f'<tr><th style="{CELL}">{key}</th><td style="{CELL};white-space:pre-wrap">{_cell(value)}</td></tr>'
        for key, value in facts.items()
        if value
    )
    progress = f'<progress value="{done}" max="{tiles}" style="width:{SIDE}px"></progress> '
    words = html.escape(words or f"{done}/{plural(tiles, 'tile')}")
    return (
        f'<div style="display:flex;gap:1em;align-items:center">{image}'
        f"<div><table>{rows}</table>{progress}{words}</div></div>"
    )


def _cell(value: str) -> str:
    text = html.escape(value)
    return f'<a href="{text}" target="_blank">{text}</a>' if value.startswith(("http://", "https://")) else text


def _stored(store: str) -> str:
    try:
        drawn = picture(store, size=SIDE)
        return _image(drawn) if drawn.samples_read <= MAX_READ else ""
    except MandeldaskError:  # the facts stand without a picture, where the store cannot be read from here
        return ""


def forming(samples: NDArray[np.integer[Any]], max_iter: int) -> str:
    """The image of escape times, 0 where they are not known yet; "" where none is."""
    return _image(picture(samples, max_iter=max_iter)) if samples.any() else ""


def _image(drawn: Picture) -> str:
    data = base64.b64encode(drawn._repr_png_()).decode()
    style = f"flex:none;max-width:{FORMING_SIDE}px;max-height:{FORMING_SIDE}px"
    return f'<img alt="the field" style="{style}" src="data:image/png;base64,{data}">'
