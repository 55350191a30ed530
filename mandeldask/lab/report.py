"""The lab's results as one page that needs nothing else: to look at, to print, to hand out."""

from __future__ import annotations

import base64
import json
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from bokeh.embed import components
from bokeh.resources import Resources

from mandeldask.errors import ConfigError
from mandeldask.lab import plots, results

if TYPE_CHECKING:
    from bokeh.plotting import figure

    from mandeldask.lab.results import Results, Table

STYLE = Path(__file__).parent / "report.css"
VERDICTS = {"true": "yes", "false": "no", "depends": "mixed", "not measurable here": "none"}


def check_path(path: str) -> Path:
    """The page's path.

    Raises
    ------
    ConfigError
        It does not end in .html, or it or a table beside it cannot be written, or would replace another's file.
    """
    page = Path(path)
    if page.suffix != ".html":
        raise ConfigError(f"a report must end in .html; got {path}")
    if not page.parent.is_dir():
        raise ConfigError(f"the folder of the report must exist; there is no {page.parent}")
    tables = page.with_suffix(".json"), page.with_suffix(".md")
    for each in (page, *tables):
        if each.is_dir():
            raise ConfigError(f"a report and its tables are files; {each} is a directory: give another name")
        if not os.access(each if each.exists() else each.parent, os.W_OK):
            raise ConfigError(f"cannot write {each}: Permission denied. Give a path that can be written")
    for each in tables:
        if each.exists() and not _is_table(each):
            raise ConfigError(
                f"the tables of {page.name} go to {' and '.join(t.name for t in tables)} beside it, and {each} is "
                "something else: give the report another name"
            )
    return page


def _is_table(path: Path) -> bool:
    """Whether an earlier report wrote it."""
    try:
        if path.suffix == ".json":
            return bool(results.read(path))
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip() == results.HEADING
    except (ConfigError, OSError, ValueError):
        return False


def write(found: Results, path: str, source: str | None = None) -> list[str]:
    """Write the page, and its tables beside it as .json and .md; the paths written.

    Raises
    ------
    ConfigError
        As of `check_path`; the disk is full; the results were read from `source` and cannot be drawn.
    """
    page = check_path(path)
    try:
        texts = {
            page: html(found),
            page.with_suffix(".json"): json.dumps(found, indent=1) + "\n",
            page.with_suffix(".md"): results.markdown(found),
        }
    except Exception as error:  # whatever a file may lead to that has our format's name and not its content
        if source is None:
            raise
        raise results.not_ours(source, f"it cannot be drawn ({type(error).__name__}: {error})") from None
    try:
        for each, text in texts.items():
            each.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    return [str(each) for each in texts]


def html(found: Results) -> str:
    """The page."""
    drawn = _plots(found)
    script, divs = components(drawn) if drawn else ("", {})
    machine = found["machine"]
    subtitle = (
        f"{machine['cores']['cpu']}, {machine['cores']['usable']} cores, NumPy {machine['numpy']['version']}, "
        f"Python {machine['python']}; {found['made'][:10]}"
    )
    body = [
        f"<header><h1>Parallel NumPy, measured</h1><p>{escape(subtitle)}</p></header>",
        _claims(found),
        _strategies(found, divs),
        _scaling(found, divs),
        _blocks(found, divs),
        _balance(found, divs),
        _machine(found),
        _data(found),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Parallel NumPy, measured</title><style>{STYLE.read_text()}</style>"
        f"{Resources(mode='inline', components=['bokeh']).render_js()}</head>\n"
        f"<body><main>{''.join(body)}</main>{script}</body></html>\n"
    )


def _plots(found: Results) -> dict[str, figure]:
    drawn = {
        "strategies": plots.strategies(found["strategies"]),
        "strong": plots.speedups(found["strong"]),
        "weak": plots.efficiencies(found["weak"]),
        "blocks": plots.block_sizes(found["block_sizes"], found["problem"]["workers"]),
    }
    longest = max((b["seconds"] for b in found["balance"]), default=0.0)
    for i, b in enumerate(found["balance"]):
        drawn |= {f"timeline {i}": plots.timeline(b, longest), f"tiles {i}": plots.tiles(b)}
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _claims(found: Results) -> str:
    cards = []
    for c in found["claims"]:
        noise = ' <span class="noise">within the noise</span>' if c["noise"] else ""
        cards.append(
            f'<article class="{VERDICTS[c["verdict"]]}"><p class="verdict">{escape(c["verdict"])}{noise}</p>'
            f"<h3>{escape(c['says'])}</h3><p class='figure'>{escape(c['figure'])}</p>"
            f"<p>{escape(c['why'])}.</p></article>"
        )
    return (
        "<section><h2>What the lesson says, and what this machine does</h2>"
        "<p>Medians, with the quartiles in brackets. <em>Cores in use</em> is CPU seconds over wall seconds.</p>"
        f'<div class="cards">{"".join(cards)}</div></section>'
    )


def _strategies(found: Results, divs: dict[str, str]) -> str:
    p = found["problem"]
    faults = [f"<li>{escape(text)}</li>" for row in found["strategies"] for text in results.faults(row)]
    wrong = (
        f"<aside><h3>What the multiprocessing version gets wrong as printed</h3><ul>{''.join(faults)}</ul></aside>"
        if faults
        else ""
    )
    crowd = f"<aside>{escape(found['crowd'].capitalize())}.</aside>" if found["crowd"] else ""
    return (
        f"<section><h2>One field, {len(found['strategies'])} ways</h2>"
        f"<p>The lesson's field, {p['side']} x {p['side']} samples, max_iter {p['max_iter']}, with {p['workers']} "
        "workers. Speed-up is against the lesson's function; efficiency is the same kernel's time alone, over the "
        "workers, over the time; overhead is what goes beyond that share; memory is the peak of a call, with its "
        f"processes.</p><div class='plot'>{divs.get('strategies', '')}</div>"
        f"{_legend(plots.kernel_legend(found['strategies']))}"
        f"{_table(results.strategies_table(found))}{crowd}{wrong}</section>"
    )


def _scaling(found: Results, divs: dict[str, str]) -> str:
    workloads = dict.fromkeys(escape(c["workload"]) for c in found["strong"])
    return (
        "<section><h2>More workers</h2>"
        f"<p>Strong scaling: the same field ({'; '.join(workloads) or 'not measured'}). Weak scaling: as many rows "
        f"for each worker, so that the time should stay. This machine has {found['machine']['cores']['usable']} usable "
        "cores.</p>"
        f'<div class="plots">{divs.get("strong", "")}{divs.get("weak", "")}</div>'
        f"{_legend(plots.curve_legend(found['strong']))}{_problems(found)}"
        f"<details><summary>Tables</summary><h3>Strong scaling</h3>"
        f"{_table(results.curve_table(found['strong'], 'workers'))}<h3>Weak scaling</h3>"
        f"{_table(results.curve_table(found['weak'], 'workers'))}</details></section>"
    )


def _blocks(found: Results, divs: dict[str, str]) -> str:
    return (
        "<section><h2>The size of a block</h2><p>Small blocks cost the scheduler a few milliseconds each; blocks too "
        f"large leave workers with nothing to do.</p><div class='plot'>{divs.get('blocks', '')}</div>"
        f"{_legend(plots.curve_legend(found['block_sizes']))}"
        f"<details><summary>Table</summary>{_table(results.curve_table(found['block_sizes'], 'block side'))}"
        "</details></section>"
    )


def _balance(found: Results, divs: dict[str, str]) -> str:
    pairs = [
        f'<div class="pair">{divs[f"timeline {i}"]}{divs[f"tiles {i}"]}</div>' for i in range(len(found["balance"]))
    ]
    return (
        "<section><h2>Who computed what, when</h2><p>Equal blocks hold unequal work: samples of the set take every "
        "iteration, those outside a few. Left, the time of each block on its worker; right, where it lies.</p>"
        f"{''.join(pairs)}{_table(results.balance_table(found))}</section>"
    )


def _machine(found: Results) -> str:
    warnings = "".join(f"<li>{escape(text)}</li>" for text in found["warnings"])
    return (
        f"<section><h2>The machine</h2>{_table(results.machine_table(found))}"
        + (f"<aside><ul>{warnings}</ul></aside>" if warnings else "")
        + "</section>"
    )


def _data(found: Results) -> str:
    links = []
    for name, text in (("JSON", json.dumps(found)), ("Markdown", results.markdown(found))):
        data = base64.b64encode(text.encode()).decode()
        suffix, kind = ("json", "application/json") if name == "JSON" else ("md", "text/markdown")
        links.append(f'<a download="lab.{suffix}" href="data:{kind};base64,{data}">{name}</a>')
    return (
        f"<footer><p>Made by mandeldask {escape(found['mandeldask'])} in {found['seconds']:.0f} s. Everything was "
        "timed in turns, so that a busy machine slows all alike; ratios are of the same turn. "
        f"<span class='data'>The figures: {', '.join(links)}.</span></p></footer>"
    )


def _problems(found: Results) -> str:
    rows = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in found["problems"].items())
    return f"<aside><ul>{rows}</ul></aside>" if rows else ""


def _legend(entries: plots.Legend) -> str:
    spans = "".join(
        f'<span class="{kind}" style="--c: {colour}">{escape(text)}</span>' for text, colour, kind in entries
    )
    return f'<p class="legend">{spans}</p>'


def _table(table: Table) -> str:
    heading, rows = table
    head = "".join(f"<th>{escape(text)}</th>" for text in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
