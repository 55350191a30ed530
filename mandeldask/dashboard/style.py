"""Looks of the page: light and dark as the browser prefers, or `?theme=light`, `?theme=dark`."""

from __future__ import annotations

TEMPLATE = """
{% extends "base.html" %}
{% block extra_resources %}
<meta name="color-scheme" content="light dark">
<style>
:root { --bg: #fafafa; --card: #ffffff; --line: #e2e5e9; --text: #1f2a33; --quiet: #5a6670; --accent: #b4540a;
  --field: #eceff2; --hatch: #d3d9df; --meter: #f3c08f; --done: #2f9e75; --retry: #b36b00; --failed: #c8322b;
  --nav: #eeeeee; --button: #ffffff; }
:root[data-theme="dark"] { --bg: #14171b; --card: #1c2127; --line: #303841; --text: #e5e9ed; --quiet: #a0abb5;
  --accent: #f0a860; --field: #20262d; --hatch: #39434d; --meter: #80552c; --done: #43c293; --retry: #eeb040;
  --failed: #ff7f78; --nav: #22282f; --button: #262d35; }
html, body { background: var(--bg); color: var(--text); }
.navbar ul, .dropdown-content { background-color: var(--nav); }
.navbar li a { color: var(--text); }
.navbar li:hover a, .navbar li.active a { color: #111; }
:root[data-theme="dark"] #dask-logo img { filter: none; }
#md { display: grid; grid-template-columns: minmax(0, 1fr) 430px; grid-template-rows: auto minmax(0, 1fr) auto;
  gap: 6px 18px; height: calc(100vh - 4.2rem); padding: 4px 4px 0; box-sizing: border-box; }
#md-head { grid-column: 1; grid-row: 1; } #md-picture { grid-column: 1; grid-row: 2; min-height: 300px; }
#md-legend { grid-column: 1; grid-row: 3; padding-bottom: 6px; }
#md-side { grid-column: 2; grid-row: 1 / span 3; overflow-y: auto; overflow-x: hidden; padding-right: 6px; }
@media (max-width: 1000px) { #md { display: block; height: auto; } #md-picture { height: 75vw; } }
</style>
<script>
(function () {
  const asked = new URLSearchParams(location.search).get("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    const theme = asked === "dark" || asked === "light" ? asked : dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = theme;
    window.dispatchEvent(new Event("mandeldask-theme"));
  }
  apply();
  dark.addEventListener("change", apply);
  window.addEventListener("DOMContentLoaded", () => {
    for (const link of document.querySelectorAll(".navbar a"))
      if (link.getAttribute("href") === "mandeldask") link.closest("li").classList.add("active");
  });
})();
</script>
{% endblock %}
{% block content %}
{% from macros import embed %}
<div id="md">
  <div id="md-head">{{ embed(roots.head) }}</div>
  <div id="md-picture">{{ embed(roots.frame) }}</div>
  <div id="md-legend">{{ embed(roots.legend) }}</div>
  <div id="md-side">{{ embed(roots.side) }}</div>
</div>
{{ plot_script }}
{% endblock %}
"""

WIDGETS = """
:host { color: var(--text); font-family: Helvetica, Arial, sans-serif; }
.bk-input, select, input { background-color: var(--button) !important; color: var(--text) !important;
  border: 1px solid var(--line) !important; border-radius: 5px; }
label { color: var(--quiet); font-size: 12px; }
.bk-btn { background: var(--button) !important; color: var(--text) !important; border-color: var(--line) !important; }
.bk-btn.bk-active { box-shadow: inset 0 -3px 0 var(--accent); font-weight: bold; }
.bk-btn:focus-visible, .bk-input:focus-visible { outline: 2px solid var(--accent); }
"""

PANEL = """
.bk-clearfix { width: 100%; }
:host { color: var(--text); font: 13px/1.45 Helvetica, Arial, sans-serif; }
.name { font-size: 19px; font-weight: bold; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); font-size: 12px; overflow-wrap: anywhere; }
.bar { position: relative; height: 22px; background: var(--field); border: 1px solid var(--line); border-radius: 5px;
  overflow: hidden; margin-top: 8px; }
.bar .fill { height: 100%; background: var(--meter); transition: width .3s; }
.bar span { position: absolute; inset: 0; text-align: center; line-height: 22px; font-weight: bold; }
.status { margin: 5px 0; }
.boxes { display: grid; grid-template-columns: 1fr 1fr; gap: 7px; }
.box { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 5px 10px; }
.label { color: var(--quiet); font-size: 11px; } .value { font-size: 19px; font-variant-numeric: tabular-nums; }
.value small { font-size: 12px; color: var(--quiet); }
ul { list-style: none; margin: 9px 0 0; padding: 0; }
.states { display: flex; flex-wrap: wrap; gap: 3px 15px; }
.states i { font-style: normal; display: inline-block; width: 1.1em; text-align: center; font-weight: bold; }
.done { color: var(--done); } .running { color: var(--accent); } .waiting { color: var(--quiet); }
.retry { color: var(--retry); } .failed { color: var(--failed); }
h3 { font-size: 13px; margin: 15px 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 12px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: normal; color: var(--quiet); padding: 2px 5px 2px 0; white-space: nowrap; }
td { padding: 2px 5px 2px 0; border-top: 1px solid var(--line); max-width: 180px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.facts td { white-space: normal; overflow-wrap: anywhere; max-width: none; }
.meter { position: relative; min-width: 58px; height: 16px; background: var(--field); border-radius: 3px;
  overflow: hidden; }
.meter div { height: 100%; background: var(--meter); }
.meter span { position: absolute; inset: 0 4px; line-height: 16px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px;
  vertical-align: -1px; border: 1px solid var(--line); }
.strip { display: inline-block; width: 150px; height: 11px; border-radius: 2px; vertical-align: -1px; margin: 0 5px; }
.errors li { border-left: 3px solid var(--failed); padding: 2px 8px; margin: 4px 0; overflow-wrap: anywhere; }
code { font-size: 12px; }
.empty { padding: 30px 0; font-size: 15px; max-width: 34em; line-height: 1.6; }
"""

# The canvas takes its colours from the same variables.
THEME_CODE = """
const style = () => getComputedStyle(document.documentElement);
const paint = () => {
  const colour = (name) => style().getPropertyValue(name).trim();
  for (const axis of axes) {
    axis.major_label_text_color = axis.axis_label_text_color = colour("--quiet");
    axis.axis_line_color = axis.major_tick_line_color = colour("--line");
  }
  for (const grid of grids) grid.grid_line_color = colour("--line");
  ground.fill_color = colour("--field");
  ground.hatch_color = colour("--hatch");
  ground.line_color = colour("--line");
};
paint();
window.addEventListener("mandeldask-theme", paint);
"""

SI_CODE = """
const prefixes = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
for (const [factor, prefix] of prefixes)
  if (tick >= factor) return `${Number((tick / factor).toPrecision(3))} ${prefix}`;
return String(Number(tick.toPrecision(3)));
"""
