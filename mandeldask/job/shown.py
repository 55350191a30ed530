"""A plan and a summary as a notebook shows them: a small picture of the store, and the facts in a table."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from mandeldask.errors import MandeldaskError
from mandeldask.image import picture
from mandeldask.store import Store
from mandeldask.words import count, duration, plural, shown

if TYPE_CHECKING:
    from mandeldask.job.events import Plan, Summary

SIDE = 240  # pixels of the picture
MAX_READ = 2**26  # samples; of a field in the making, whose coarse levels are missing, there may be more


def plan_html(plan: Plan) -> str:
    """A plan: what is going to be computed, how much of it is there already."""
    d = plan.store.description
    facts = {
        "view": f"x {list(d.x)}, y {list(d.y)}, {d.registration}",
        "field": f"{d.shape[0]} x {d.shape[1]} = {count(plan.samples)} samples, max_iter {d.max_iter}",
        "kernel": plan.kernel,
        "tiles": f"{plan.tiles} of {d.tile[0]} x {d.tile[1]}; {plan.pending} to compute",
        "store": shown(plan.store.path),
    }
    return _block(plan.store if plan.done else None, facts, plan.done, plan.tiles)


def summary_html(summary: Summary) -> str:
    """How a run ended."""
    facts = {
        "done": f"{plural(summary.computed, 'tile')} in {duration(summary.seconds)}: "
        f"{count(summary.iterations)} iterations, {count(summary.iterations_per_second)} iterations/s",
        "field": f"{count(summary.samples)} samples, {summary.not_escaped / summary.samples:.4%} did not escape"
        + (f": area {summary.area:.6g}" if summary.area is not None else ""),
        "failed": plural(summary.failed, "tile") if summary.failed else "",
        "store": shown(summary.store),
    }
    return _block(summary.store, facts, summary.tiles - summary.failed, summary.tiles)


def _block(store: Store | str | None, facts: dict[str, str], done: int, tiles: int) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left">{key}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for key, value in facts.items()
        if value
    )
    progress = f'<progress value="{done}" max="{tiles}" style="width:{SIDE}px"></progress> {done}/{tiles} tiles'
    return (
        f'<div style="display:flex;gap:1em;align-items:center">{_picture(store) if store else ""}'
        f"<div><table>{rows}</table>{progress}</div></div>"
    )


def _picture(store: Store | str) -> str:
    try:
        drawn = picture(store, size=SIDE)
        if drawn.samples_read > MAX_READ:
            return ""
        data = base64.b64encode(drawn._repr_png_()).decode()
    except MandeldaskError:  # a store that cannot be read from here takes nothing from the numbers
        return ""
    return f'<img alt="the field" src="data:image/png;base64,{data}">'
