// The controls and what the page says in words.

import { SCALE_NAMES } from "./colour.js";

const $ = (id) => document.getElementById(id);
const STATES = { off: "not started", starting: "starting", ready: "ready", lost: "lost" };
const MAX_SLIDER = 1000;

export class Panel {
  #messages = new Map();
  #closed = new Map(); // what was said when a message was closed: it is not said again
  #timers = new Map();

  constructor(scene, acts) {
    Object.assign(this, { scene, acts });
    document.title = `${scene.name} · mandeldask`;
    $("name").textContent = scene.name;
    options($("map"), Object.keys(scene.colormaps));
    options($("scale"), SCALE_NAMES);
    for (const [id, act] of Object.entries({
      home: acts.home, "zoom-in": () => acts.zoom(0.7), "zoom-out": () => acts.zoom(-0.7), fit: acts.fit,
      "save-config": acts.saveConfig, "save-picture": acts.savePicture, "copy-link": acts.copyLink,
      "render-stop": acts.stopRender, "render-close": () => this.#close(), start: acts.start, toggle: () => this.toggle(),
    })) $(id).addEventListener("click", act);
    $("outlines").addEventListener("change", () => acts.outlines($("outlines").checked));
    for (const id of ["map", "scale", "interior"])
      $(id).addEventListener("input", () => acts.colours({ [id]: $(id).value }));
    for (const id of ["density", "phase"])
      $(id).addEventListener("input", () => acts.colours({ [id]: fromSlider(id, Number($(id).value)) }));
    $("smooth").addEventListener("change", () => acts.colours({ smooth: $("smooth").checked }));
    $("max-iter-slider").addEventListener("input", () => this.#typed(this.#fromSlider()));
    $("max-iter-slider").addEventListener("change", () => acts.fix(this.#fromSlider()));
    $("max-iter").addEventListener("change", () => acts.fix(this.#checked(Number($("max-iter").value))));
    $("automatic").addEventListener("change", () => acts.fix($("automatic").checked ? null : this.maxIter));
    $("finer").addEventListener("change", () => this.#size());
    $("render").addEventListener("submit", (event) => (event.preventDefault(), acts.render($("render-name").value)));
    $("max-iter").max = scene.max_iter_limit;
    if (matchMedia("(max-width: 640px)").matches) this.toggle();
  }

  get finer() {
    return Number($("finer").value);
  }

  toggle() {
    const open = $("panel").hidden;
    $("panel").hidden = !open;
    $("toggle").setAttribute("aria-expanded", String(open));
  }

  #fromSlider() {
    const part = Number($("max-iter-slider").value) / MAX_SLIDER;
    const value = 50 * (this.scene.max_iter_limit / 50) ** part;
    return this.#checked(Number(value.toPrecision(2)));
  }

  #checked(value) {
    return Math.min(this.scene.max_iter_limit, Math.max(1, Math.round(value) || this.scene.max_iter));
  }

  #typed(value) {
    $("automatic").checked = false;
    $("max-iter").value = value;
  }

  setMaxIter(value, automatic) {
    if (value === this.maxIter && automatic === this.automatic) return; // else what is being typed would be lost
    Object.assign(this, { maxIter: value, automatic });
    $("automatic").checked = automatic;
    $("max-iter").value = value;
    $("max-iter-slider").value = MAX_SLIDER * (Math.log(value / 50) / Math.log(this.scene.max_iter_limit / 50));
    const { stored, max_iter } = this.scene;
    $("max-iter-note").textContent =
      stored && value > max_iter ? `more than the store's ${max_iter.toLocaleString("en")}: all is computed live` : "";
  }

  setColours(settings) {
    for (const id of ["map", "scale", "interior"]) $(id).value = settings[id];
    for (const id of ["density", "phase"]) $(id).value = toSlider(id, settings[id]);
    $("smooth").checked = settings.smooth;
  }

  setOutlines(on) {
    $("outlines").checked = on;
  }

  readout({ re, im, count, kind, proof, zoom, span, level, pending, refining, bands, size }) {
    put("re", middle(re));
    put("im", middle(im));
    Object.assign($("re"), { title: re });
    Object.assign($("im"), { title: im });
    put("count", count);
    put("kind", proof ? `${kind}, ${proof}` : kind);
    $("kind").className = `kind ${kind}`;
    put("zoom", `${Number(zoom) < 1e4 ? Number(zoom).toLocaleString("en") : zoom}×`);
    put("span", span);
    put("level", String(level));
    put("pending", pending ? `${pending} tile${pending === 1 ? "" : "s"} to come` : refining ? "refining" : "sharp");
    $("pending").classList.toggle("on", pending > 0 || refining);
    $("smooth").disabled = bands === "all";
    $("smooth-note").hidden = bands === "none";
    this.shape = size;
    this.#size();
  }

  #size() {
    const [rows, columns] = this.shape ?? [0, 0];
    put("size", `${columns.toLocaleString("en")} × ${rows.toLocaleString("en")} samples`);
    $("render-start").disabled = Boolean(this.busy);
  }

  state({ cluster, store, rendering }) {
    $("cluster").dataset.state = cluster.state;
    put("cluster-words", cluster.state === "ready" ? `${cluster.threads} thread${cluster.threads === 1 ? "" : "s"}` : STATES[cluster.state]);
    $("cluster").title = cluster.words;
    $("start").hidden = !["off", "lost"].includes(cluster.state);
    put("start", cluster.state === "lost" ? "try again" : "start");
    const whole = store.done === store.tiles;
    put("store-words", !this.scene.stored ? "no store" : whole ? "stored" : `${store.done} of ${store.tiles} tiles stored`);
    this.#rendering(rendering);
  }

  #rendering({ state, words, done, tiles, store }) {
    const running = state === "running";
    this.rendering = `${state} ${words}`;
    $("rendering").hidden = state === "none" || this.closed === this.rendering;
    $("rendering").dataset.state = state;
    $("render-bar").max = tiles || 1;
    $("render-bar").value = done;
    $("render-bar").hidden = $("render-stop").hidden = !running;
    $("render-close").hidden = running;
    put("render-words", running ? `${done} of ${tiles || "?"} tiles, ${words}` : words);
    $("rendering").title = store;
    this.busy = running;
    this.#size();
  }

  #close() {
    this.closed = this.rendering;
    $("rendering").hidden = true;
  }

  /** Show a message, for so many ms or until it is "". */
  say(what, words, ms = 0) {
    if (!ms && words && this.#closed.get(what) === words) return;
    this.#closed.delete(what);
    if ((this.#messages.get(what) ?? "") !== words) {
      this.#messages.set(what, words);
      $("messages").replaceChildren(...[...this.#messages].filter(([, text]) => text).map((message) => this.#message(...message)));
    }
    clearTimeout(this.#timers.get(what));
    if (ms) this.#timers.set(what, setTimeout(() => this.say(what, ""), ms));
  }

  #message(what, text) {
    const [line, close] = [document.createElement("p"), document.createElement("button")];
    Object.assign(close, { textContent: "×", ariaLabel: "Close", className: "close" });
    close.addEventListener("click", () => (this.say(what, ""), this.#closed.set(what, text)));
    line.append(text, close);
    return line;
  }
}

function options(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
}

function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

/** A number of very many digits without those in the middle. */
const middle = (text) => (text.length > 60 ? `${text.slice(0, 22)} … ${text.slice(-20)}` : text);

const toSlider = (id, value) => (id === "density" ? 100 * Math.log10(value) : value * 100);
const fromSlider = (id, value) => (id === "density" ? Number((10 ** (value / 100)).toPrecision(3)) : value / 100);
