"""How a notebook shows a run: a small picture of its store beside a table of facts."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from mandeldask.errors import MandeldaskError
from mandeldask.image import picture
from mandeldask.text import plural

SIDE = 240  # pixels of the picture
MAX_READ = 2**26  # samples; an unfinished field lacks its coarse levels, so a picture of it may have to read more


def block(store: str | None, facts: Mapping[str, str], done: int, tiles: int) -> str:
    """HTML of the facts and a progress bar, with the picture of `store` where there is one to show."""
    rows = "".join(
        f'<tr><th style="text-align:left">{key}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for key, value in facts.items()
        if value
    )
    bar = f'<progress value="{done}" max="{tiles}" style="width:{SIDE}px"></progress>'
    return (
        f'<div style="display:flex;gap:1em;align-items:center">{_picture(store) if store else ""}'
        f"<div><table>{rows}</table>{bar} {done}/{plural(tiles, 'tile')}</div></div>"
    )


def _picture(store: str) -> str:
    try:
        drawn = picture(store, size=SIDE)
        if drawn.samples_read > MAX_READ:
            return ""
        data = base64.b64encode(drawn._repr_png_()).decode()
    except MandeldaskError:  # the facts stand without a picture, where the store cannot be read from here
        return ""
    return f'<img alt="the field" src="data:image/png;base64,{data}">'
