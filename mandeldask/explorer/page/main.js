// Wires the page together: scene, view, tiles, painter, gestures, panel.

import { Colours, SCALE_NAMES } from "./colour.js";
import { format, parse, number, scientific } from "./exact.js";
import { Gestures } from "./gestures.js";
import { description, fromFragment, save, shape, toFragment, toYaml } from "./link.js";
import { Painter } from "./paint.js";
import { Panel } from "./panel.js";
import { rectangle, Tiles } from "./tiles.js";
import { View } from "./view.js";

const MOST_DENSE = 2; // drawn pixels a CSS pixel: a telephone's third costs twice the tiles and is not seen
const ASK_EVERY = 70; // ms between two looks at which tiles to ask for, while the view moves
const SETTLE = 250; // ms without motion, after which the link is written
const STILL = 150; // ms without motion, after which a deep view gets a reference orbit
const REST = 500; // ms without a change, after which the view is refined
const APART = 1.5; // drawn pixels: samples that are farther apart are those of a coarser tile, which stands in
const LOOK_EVERY = { calm: 2500, busy: 700 }; // ms

const NO_VIEW = "The link's re, im and span name no view: they must be decimal numbers, the span above 0. Here is the whole.";

const scene = await (await fetch("/scene")).json();
const view = new View(scene);
const canvas = document.getElementById("plane");
const painter = new Painter(canvas);
const colours = new Colours(scene);
const tiles = new Tiles(scene, redraw, complain);
const panel = new Panel(scene, { home, fit, outlines, saveConfig, savePicture, copyLink, render, stopRender, start, zoom, fix, colours: chooseColours });
const gestures = new Gestures(canvas, view, redraw, { home, fit, outlines, panel: () => panel.toggle() });

let fixed = null; // max_iter, where it does not follow the depth
let maxIter = scene.max_iter;
let fitted = false;
let chosen = false; // whether density and phase are the user's, who may be one with a link
let outlined = false;
let dirty = false;
let asked = 0;
let settling = 0;
let resting = 0;
let shown = ""; // view and colours of the last frame
let learnt = ""; // those that were last learnt from
let changed = 0; // when they were others
let last = 0;
let stateOf = null;
let written = ""; // the link
let seen = ""; // in the address: as it was written there, or typed and heeded
let targets = [];
let finer = [];
let finerPixel = 0; // the pixel of the view that they are for
let refined = false;
let looking = 0;

function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  dirty = false;
  gestures.step(Math.min(50, now - last || 16));
  last = now;
  setMaxIter();
  neighbourhood(now);
  targets = tiles.targets(view, maxIter);
  const rests = refine(now);
  if (now - asked > ASK_EVERY || !gestures.busy) {
    asked = now;
    tiles.want(rests ? [...targets, ...finer] : targets);
  } else setTimeout(redraw, ASK_EVERY);
  const behind = painter.frame(view, tiles, colours, { targets, finer, resting: rests, outlined });
  if (behind) redraw();
  refined = rests && !behind && finer.every((target) => tiles.here(target));
  if (!fitted && sharp()) fitOnce();
  readout();
  if (gestures.busy) redraw();
  clearTimeout(settling);
  settling = setTimeout(settle, SETTLE);
}

/** A deep view is computed from an origin, which is chosen once the view is still. */
function neighbourhood(now) {
  if (view.level <= view.deepest) return;
  if (tiles.near.follow(view, now - changed >= STILL && !gestures.busy)) {
    fitted = chosen; // counts lie close together there
    clearTimeout(looking);
    looking = setTimeout(look, LOOK_EVERY.busy); // for how far the reference orbit is
  }
  if (!tiles.near.origin) setTimeout(redraw, STILL);
}

/** Tiles a level deeper, once the view rests, which is returned; those that are here stay while it is moved. */
function refine(now) {
  const here = [toFragment(view, maxIter, colours.settings), canvas.width, canvas.height].join();
  if (here !== shown) {
    shown = here;
    changed = now;
    clearTimeout(resting);
    resting = setTimeout(redraw, REST);
  }
  const rests = now - changed >= REST - 1 && sharp();
  if (learnt !== shown && sharp()) {
    learnt = shown;
    tiles.learn(view, targets);
  }
  if (rests) [finer, finerPixel] = [tiles.finer(view, maxIter, targets), view.pixel];
  else if (finerPixel !== view.pixel) finer = [];
  else for (const target of finer) target.rectangle = rectangle(target, view);
  return rests;
}

/** Whether every tile of the view is here. */
function sharp() {
  return !gestures.busy && targets.length > 0 && targets.every((target) => tiles.here(target));
}

function settle() {
  if (gestures.busy || location.hash !== seen) return; // another link was typed: `restore` comes next
  view.fromText(...view.toText()); // the link says exactly what is shown
  const link = toFragment(view, fixed, colours.settings);
  if (link === written) return;
  written = link;
  history.replaceState(null, "", link);
  seen = location.hash;
}

function restore() {
  if (location.hash === written && written) return;
  seen = location.hash;
  const said = fromFragment(location.hash, scene.colormaps, SCALE_NAMES, scene.max_iter_limit);
  fixed = said.fixed;
  const found = said.centre && view.open(...said.centre);
  if (!found) view.home();
  panel.say("link", said.centre && !found ? NO_VIEW : "");
  fitted = chosen = isFit(said.colours);
  setColours(said.colours);
}

function home() {
  gestures.rest = 0;
  view.home();
  redraw();
}

function zoom(amount) {
  gestures.glide(amount);
}

function setMaxIter() {
  maxIter = fixed ?? tiles.automatic(view);
  panel.setMaxIter(maxIter, fixed === null);
}

/** Fix max_iter; null lets it follow the depth. */
function fix(value) {
  fixed = value;
  setColours({});
}

const isFit = (settings) => "density" in settings || "phase" in settings;

function chooseColours(settings) {
  chosen ||= isFit(settings);
  setColours(settings);
}

function setColours(settings) {
  colours.set(settings, fixed ?? Infinity);
  panel.setColours(colours.settings);
  redraw();
}

function fitOnce() {
  fitted = true;
  fit();
}

function fit() {
  chosen = false;
  const found = colours.fit(inView());
  if (found) setColours(found);
}

const inView = () => targets.map((target) => tiles.here(target)).filter(Boolean);

function outlines(on = !outlined) {
  outlined = on;
  panel.setOutlines(on);
  redraw();
}

const described = (levels = panel.finer) => description(view, maxIter, levels, colours.toPicture(maxIter));

function saveConfig() {
  const text = toYaml(described(), link());
  save(new Blob([text], { type: "application/yaml" }), `${fileName()}.yaml`);
  panel.say("saved", `Saved: compute it with  mandeldask run ${fileName()}.yaml --out ${fileName()}.zarr`, 8000);
}

function savePicture() {
  while (painter.frame(view, tiles, colours, { targets, finer, resting: true })); // a frame colours as many tiles as it has time for
  canvas.toBlob((blob) => save(blob, `${fileName()}.png`), "image/png");
  redraw();
}

async function copyLink() {
  settle();
  try {
    await navigator.clipboard.writeText(link());
    panel.say("saved", "The link is in the clipboard.", 3000);
  } catch {
    panel.say("saved", `The link is in the address bar: ${link()}`, 8000);
  }
}

const link = () => location.origin + location.pathname + toFragment(view, fixed, colours.settings);
const fileName = () => `${scene.name.replace(/\.(zarr|ya?ml)$/i, "").replace(/[^\w.-]+/g, "-") || "view"}-${short()}`;
const short = () => view.toText().slice(0, 2).map((text) => text.slice(0, 9)).join("_").replace(/[^\w.-]/g, "");

async function post(path, method, body) {
  try {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) panel.say("render", said.error, 10000);
  } catch {
    complain("server", "The explorer's server does not answer.");
  }
  look();
}

function render(name) {
  post("/render", "POST", { name, description: described() });
}

function stopRender() {
  post("/render", "DELETE");
}

async function start() {
  await post("/start", "POST");
  tiles.refused.clear();
  redraw();
}

/** A message that stays until what it tells of is over; "" ends it. */
function complain(what, words) {
  panel.say(what, words);
}

function readout() {
  const [x, y] = gestures.pointer ?? [view.width / 2, view.height / 2];
  const [re, im] = view.at(x, y);
  const found = tiles.count(re, im, view.scale);
  const cap = Math.min(maxIter, found?.tile.maxIter);
  const inside = found && found.n >= cap;
  const coarse = found?.apart > APART * view.pixel || (inside && cap < maxIter);
  panel.readout({
    re: format(re, view.decimals, view.scale),
    im: format(im, view.decimals, view.scale),
    count: !found ? "–" : coarse ? "…" : inside ? `≥ ${cap.toLocaleString("en")}, not escaped` : found.n.toLocaleString("en"),
    kind: coarse ? "" : (found?.tile.kind ?? ""),
    proof: found?.tile.deep && !coarse ? proof(found.tile) : "",
    zoom: scientific(view.homeSpan / view.span, 3, view.homeScale - view.scale),
    span: scientific(view.span, 4, view.scale),
    level: view.level,
    pending: targets.filter((target) => !tiles.here(target)).length,
    bands: bands(),
    refining: finer.length > 0 && !refined,
    size: shape(view, panel.finer),
  });
  const within = inView().every((tile) => tile.inside);
  if (sharp()) panel.say("inside", within ? `No sample in view escapes within ${maxIter.toLocaleString("en")} iterations. Zoom out, or raise the iterations.` : "");
  panel.say("depth", view.atEnd ? "The explorer goes no deeper." : "");
}

/** What is known of the counts of a deep tile. */
function proof({ proven, unproven }) {
  if (!proven) return "preview";
  return unproven ? `proven, but ${unproven.toLocaleString("en")} of its tile` : "proven";
}

/** Whether tiles in view lack what makes them smooth: none, some, all. */
function bands() {
  const [all, lacking] = [inView().length, inView().filter(({ fraction }) => !fraction).length];
  return lacking === 0 ? "none" : lacking < all ? "some" : "all";
}

async function look() {
  clearTimeout(looking);
  try {
    const state = await (await fetch("/state")).json();
    const more = stateOf && (state.store.done !== stateOf.store.done || state.store.problem !== stateOf.store.problem);
    const turned = state.cluster.state !== stateOf?.cluster.state;
    stateOf = state;
    tiles.clusterOn = ["starting", "ready"].includes(state.cluster.state);
    complain("store", state.store.problem && `${state.store.problem}. What is here stays; the rest is computed.`);
    complain("server", "");
    complain("reference", state.reference);
    complain("cluster", state.cluster.state === "lost" ? `No live tiles: ${state.cluster.words}. Stored tiles go on.` : "");
    if (state.cluster.state === "ready") complain("live", "");
    panel.state(state);
    if (more) tiles.again();
    if (more || turned) redraw();
  } catch {
    complain("server", "The explorer's server does not answer. What is here stays; start it again to go on.");
  }
  const waits = targets.some((target) => target.deep && !tiles.here(target));
  const busy = waits || stateOf?.cluster.state === "starting" || stateOf?.rendering.state === "running";
  looking = setTimeout(look, document.hidden ? 10000 : busy ? LOOK_EVERY.busy : LOOK_EVERY.calm);
}

function resize() {
  const density = Math.min(devicePixelRatio || 1, MOST_DENSE);
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  view.resize(width, height, density);
  redraw();
}

resize();
restore();
addEventListener("resize", resize);
addEventListener("hashchange", restore);
document.addEventListener("visibilitychange", () => document.hidden || look());
look();
canvas.focus({ preventScroll: true });

// For the console, and for tests.
window.explorer = {
  scene, view, tiles, colours, sharp, number, parse, fit,
  get maxIter() { return maxIter; },
  get targets() { return targets; },
  get finer() { return finer; },
  get refined() { return refined; },
  get state() { return stateOf; },
  description: (levels = 0) => described(levels),
};
