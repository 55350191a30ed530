// Tiles: where they lie, which are wanted, and how they come.

import { Neighbourhood, suffices } from "./deep.js";
import { BITS, fixed, floor, number, parse, place } from "./exact.js";
import { scaleOf, TILE, TILE_LEVEL } from "./view.js";

const MOST = 900; // tiles kept: of 130 to 260 kB each, and those that were shown whole 260 more
const AT_ONCE = 6; // requests, which is what a browser makes of one host
const PREVIEW = 3; // levels above
const SHALLOWEST = -8;
const AGAIN = { busy: 1000, failed: 5000 }; // ms until a tile is asked for again
const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

/** The plane's rectangle of a tile on the canvas, in drawn pixels; y down. */
export function rectangle(tile, view) {
  const { pixel, scale } = view;
  const [dx, dy] = steps(tile, scale);
  const x = (view.width * view.density) / 2 + number(place(tile.left, tile.level, scale) - view.re) / pixel;
  const bottom = (view.height * view.density) / 2 - number(place(tile.bottom, tile.level, scale) - view.im) / pixel;
  const w = (tile.columns * dx) / pixel;
  const h = (tile.rows * dy) / pixel;
  return { x, y: bottom - h, w, h };
}

/** Units of 2^-scale from one sample of a tile to the next, along x and y. */
const steps = ({ dx, dy, depth }, scale) => [dx, dy].map((step) => step * 2 ** (scale - depth));

export class Tiles {
  cache = new Map(); // key -> tile, the least lately shown first
  flying = new Map(); // name of a request -> AbortController
  refused = new Map(); // name of a request -> ms from when on it may be made again
  wanted = [];
  clusterOn = false;
  near = new Neighbourhood();
  requests = 0;

  constructor(scene, changed, complain) {
    Object.assign(this, { scene, changed, complain });
    this.scale = scaleOf(-scene.unit); // of what is stored
    const fixedPoint = (text) => parse(text, this.scale);
    this.origin = [fixedPoint(scene.x[0]), fixedPoint(scene.y[0])];
    const step = (bounds, n) => {
      const cells = scene.registration === "gridline" ? n - 1 : n;
      return cells ? number(fixedPoint(bounds[1]) - fixedPoint(bounds[0])) / cells : 0;
    };
    const steps = [step(scene.x, scene.columns), step(scene.y, scene.rows)];
    this.step = [steps[0] || steps[1] || 1e-9, steps[1] || steps[0] || 1e-9];
  }

  /**
   * How many iterations a view is computed with, unless they are fixed: the source's own where its samples are near
   * enough; deeper as many as the level asks for, if that is more. The gallery's views, whose max_iter was chosen by
   * eye, have 0.45 to 1.5 times as many below level 8. Beyond binary64 the counts of the last view that was whole tell.
   */
  automatic(view) {
    const { max_iter, max_iter_limit } = this.scene;
    const asked = this.#apart(view) > Math.SQRT2 ? Number((100 * Math.max(0, view.level) ** 1.5).toPrecision(2)) : 0;
    const told = asked && view.level > view.deepest && this.told;
    return Math.min(Math.max(max_iter, told || asked), max_iter_limit);
  }

  /** Learn from the counts of a view that is whole how many iterations suffice around it. */
  learn(view, targets) {
    this.told = view.level > view.deepest ? suffices(targets.map((target) => this.here(target))) : 0;
  }

  /** Drawn pixels a sample of the source. */
  #apart(view) {
    return (Math.max(...this.step) * 2 ** (view.scale - this.scale)) / view.pixel;
  }

  /**
   * What a view that rests is refined with: proven tiles where the targets are not, then those a level deeper, but none
   * that nobody would compute, nor too many.
   */
  finer(view, maxIter, targets) {
    if (view.level === view.deepest) return [];
    const proven = targets.filter(({ deep }) => deep).map((target) => ({ ...target, proven: true }));
    if (!proven.every((target) => this.here(target))) return proven;
    const awake = this.clusterOn || targets.some(({ kind }) => kind === "live");
    const found = this.targets(view, maxIter, 1).filter(({ kind }) => awake || kind === "stored");
    return found.length + 2 * targets.length < MOST ? found : [];
  }

  /** The tiles that the view is made of, or those `finer` levels deeper, nearest to its centre first. */
  targets(view, maxIter, finer = 0) {
    const stored = this.#storedTargets(view, maxIter, finer);
    this.deepest = view.deepest;
    this.box = this.scene.stored ? this.#bounds(view) : null;
    const covered = stored.length && this.#covers(view, stored);
    const targets = covered ? stored : [...this.#liveTargets(view, maxIter, stored, finer), ...stored];
    const [cx, cy] = [(view.width * view.density) / 2, (view.height * view.density) / 2];
    for (const target of targets) {
      const { x, y, w, h } = (target.rectangle = rectangle(target, view));
      target.far = Math.hypot(x + w / 2 - cx, y + h / 2 - cy);
    }
    return targets.sort((a, b) => a.far - b.far);
  }

  #storedTargets(view, maxIter, finer) {
    const { scene } = this;
    if (!scene.stored || maxIter > scene.max_iter) return [];
    const finest = this.#apart(view) * 2 ** finer;
    const k = Math.max(0, Math.round(-Math.log2(finest)));
    if (finest > Math.SQRT2) return [];
    const level = Math.min(k, scene.levels.length - 1);
    const { rows, columns } = scene.levels[level];
    const probe = this.#storedTile(level, 0, 0);
    const { x, y, w, h } = rectangle({ ...probe, rows: TILE, columns: TILE }, view);
    const range = (start, size, length, n) => [
      Math.max(0, Math.floor(-start / size)),
      Math.min(Math.ceil(n / TILE) - 1, Math.floor((length - start) / size)),
    ];
    const [left, right] = range(x, w, view.width * view.density, columns);
    const below = y + h - view.height * view.density; // rows go up
    const [low, high] = [
      Math.max(0, Math.floor(below / h)),
      Math.min(Math.ceil(rows / TILE) - 1, Math.floor((y + h) / h)),
    ];
    const found = [];
    for (let i = low; i <= high; i++) for (let j = left; j <= right; j++) found.push(this.#storedTile(level, i, j));
    return found;
  }

  #storedTile(level, row, column) {
    const { rows, columns, stride } = this.scene.levels[level];
    const start = this.scene.registration === "gridline" ? 0 : 0.5;
    const at = (index, axis) => this.origin[axis] + fixed((index * TILE * stride + start - stride / 2) * this.step[axis]);
    return {
      kind: "stored",
      key: `stored/${level}/${row}/${column}`,
      left: at(column, 0),
      bottom: at(row, 1),
      level: BITS + this.scale,
      dx: stride * this.step[0],
      dy: stride * this.step[1],
      depth: this.scale,
      rows: Math.min(TILE, rows - row * TILE),
      columns: Math.min(TILE, columns - column * TILE),
      maxIter: this.scene.max_iter,
    };
  }

  /** Whether stored tiles that are there whole, or on their way, fill the canvas. */
  #covers(view, stored) {
    const box = this.#bounds(view);
    const inside = box.x <= 0.5 && box.y <= 0.5;
    const filled = box.x + box.w >= view.width * view.density - 0.5 && box.y + box.h >= view.height * view.density - 0.5;
    return inside && filled && !stored.some((tile) => this.#lacks(tile));
  }

  #lacks(target) {
    return this.refused.has(target.key) || Boolean(this.cache.get(target.key)?.missing);
  }

  /** The rectangle of the whole store. */
  #bounds(view) {
    const [{ rows, columns }] = this.scene.levels;
    return rectangle({ ...this.#storedTile(0, 0, 0), rows, columns }, view);
  }

  /** Live tiles where no stored ones are; beyond the store's edge only once there is a cluster, or the view is there. */
  #liveTargets(view, maxIter, stored, finer) {
    const level = view.level + finer;
    const [left, top] = view.at(0, 0).map((value) => floor(value, level, view.scale));
    const [right, bottom] = view.at(view.width, view.height).map((value) => floor(value, level, view.scale));
    const box = stored.length ? this.#bounds(view) : null;
    const lacking = stored.filter((tile) => this.#lacks(tile)).map((tile) => rectangle(tile, view));
    const overEdge = this.clusterOn || !box || !this.#holdsCentre(box, view);
    const found = [];
    for (let row = bottom; row <= top; row++)
      for (let column = left; column <= right; column++) {
        const tile = this.#liveTile(level, column, row, maxIter, finer > 0);
        if (box) {
          const here = rectangle(tile, view);
          const hole = lacking.some((other) => overlap(here, other));
          if (!hole && (within(here, box) || !overEdge)) continue;
        }
        found.push(tile);
      }
    return found;
  }

  #holdsCentre({ x, y, w, h }, view) {
    const [cx, cy] = [(view.width * view.density) / 2, (view.height * view.density) / 2];
    return x <= cx && cx <= x + w && y <= cy && cy <= y + h;
  }

  #liveTile(level, column, row, maxIter, proven) {
    return {
      kind: "live",
      key: `live/${level}/${column}/${row}`,
      address: { level, column, row },
      left: column,
      bottom: row,
      level,
      dx: 1,
      dy: 1,
      depth: level + TILE_LEVEL,
      rows: TILE,
      columns: TILE,
      maxIter,
      ...(level > this.deepest && { deep: true, proven, from: this.near.from({ level, column, row }) }),
    };
  }

  /** The tile of a target, if it is here, deep enough, and proven where that is wanted. */
  here(target) {
    const tile = this.cache.get(target.key);
    return tile && tile.maxIter >= target.maxIter && (tile.proven || !target.proven) ? tile : null;
  }

  /** Ask for what is wanted, in this order, and for nothing else. */
  want(targets) {
    const now = performance.now();
    const lacking = targets.filter((t) => !this.here(t) && !(this.refused.get(name(t)) > now) && t.from !== null);
    this.wanted = [...this.#previews(lacking), ...lacking];
    const keep = new Set(this.wanted.map(name));
    for (const [request, abort] of this.flying) if (!keep.has(request)) abort.abort();
    this.#fly();
  }

  /** Coarse tiles to come first where nothing is there yet: each stands for 64. */
  #previews(lacking) {
    const found = new Map();
    for (const target of lacking) {
      if (target.kind !== "live" || (this.box && within(target.rectangle, this.box))) continue;
      const { level, column, row } = target.address;
      const above = (d) => this.#liveTile(level - d, column >> BigInt(d), row >> BigInt(d), target.maxIter);
      const coarse = above(PREVIEW);
      if (found.has(coarse.key)) continue;
      const known = [1, 2, 3, 4, 5, 6].some((d) => this.cache.has(above(d).key));
      if (!known && coarse.address.level >= SHALLOWEST) found.set(coarse.key, coarse);
    }
    return [...found.values()].filter((tile) => !this.refused.has(name(tile)));
  }

  #fly() {
    const atOnce = this.wanted.some(({ deep }) => deep) ? AT_ONCE - 1 : AT_ONCE; // one is for news of the reference
    while (this.flying.size < atOnce) {
      const next = this.wanted.find((target) => !this.flying.has(name(target)));
      if (!next) return;
      this.#fetch(next);
    }
  }

  async #fetch(target) {
    const abort = new AbortController();
    const flight = name(target);
    this.flying.set(flight, abort);
    this.requests += 1;
    try {
      const answer = await fetch(`/${flight}`, { signal: abort.signal });
      if (!answer.ok) return await this.#refuse(target, answer);
      const [kind, rows, columns, what, unproven] = answer.headers.get("Tile").split(" ");
      const bytes = await answer.arrayBuffer();
      const counts = new KINDS[kind](bytes, 0, rows * columns);
      const fraction = what === "smooth" ? new Uint16Array(bytes.slice(counts.byteLength)) : null;
      if (!abort.signal.aborted) this.#arrive({ ...target, unproven: Number(unproven) }, counts, fraction);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.refused.set(flight, performance.now() + AGAIN.busy);
      this.complain("server", "The explorer's server does not answer. What is here stays; start it again to go on.");
      setTimeout(this.changed, AGAIN.busy + 50);
    } finally {
      this.flying.delete(flight);
      this.wanted = this.wanted.filter((other) => name(other) !== flight);
      this.#fly();
    }
  }

  async #refuse(target, answer) {
    const { error } = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
    const again = answer.status === 503 ? AGAIN.busy : AGAIN.failed;
    this.refused.set(name(target), performance.now() + again);
    this.complain(target.kind, error);
    this.changed();
    setTimeout(this.changed, again + 50);
  }

  #arrive(target, counts, fraction) {
    this.refused.delete(name(target));
    this.complain("server", "");
    this.complain(target.kind, "");
    const missing = target.kind === "stored" && counts.includes(0);
    const inside = counts.every((n) => n >= target.maxIter);
    this.cache.delete(target.key);
    this.cache.set(target.key, { ...target, counts, fraction, missing, inside, look: null, fine: null });
    this.changed();
  }

  /** Mark as shown, and let go of those that were not for the longest time. */
  keep(tiles) {
    for (const tile of tiles) {
      if (this.cache.get(tile.key) !== tile) continue;
      this.cache.delete(tile.key);
      this.cache.set(tile.key, tile);
    }
    for (const key of this.cache.keys()) {
      if (this.cache.size <= MOST) break;
      this.cache.delete(key);
    }
  }

  /** Forget stored tiles that had holes: the store has more by now. */
  again() {
    for (const [key, tile] of this.cache) if (tile.kind === "stored" && tile.missing) this.cache.delete(key);
    this.refused.clear();
    this.changed();
  }

  /** The count at a point of the plane, from the finest tile that is here, whose samples are `apart`; null for none. */
  count(re, im, scale) {
    let best = null;
    const fineness = ({ dx, depth }) => depth - Math.log2(dx);
    for (const tile of this.cache.values()) {
      const [dx, dy] = steps(tile, scale);
      const j = Math.floor(number(re - place(tile.left, tile.level, scale)) / dx);
      const i = Math.floor(number(im - place(tile.bottom, tile.level, scale)) / dy);
      if (!(i >= 0 && j >= 0 && i < tile.rows && j < tile.columns)) continue;
      if (best && fineness(best.tile) >= fineness(tile)) continue;
      const n = tile.counts[i * tile.columns + j];
      if (n) best = { n, tile, apart: Math.max(dx, dy) };
    }
    return best;
  }
}

/** What a target is asked for by: of another max_iter it is another request, and the old one is not waited for. */
function name({ kind, key, maxIter, deep, from, proven }) {
  if (kind === "stored") return key;
  return `${key}?max_iter=${maxIter}${deep ? `&origin=${from}&proof=${proven ? "double-double" : "none"}` : ""}`;
}

export const overlap = (a, b) =>
  a.x < b.x + b.w - 0.5 && b.x < a.x + a.w - 0.5 && a.y < b.y + b.h - 0.5 && b.y < a.y + a.h - 0.5;

export const within = (a, b) =>
  a.x >= b.x - 0.5 && a.y >= b.y - 0.5 && a.x + a.w <= b.x + b.w + 0.5 && a.y + a.h <= b.y + b.h + 0.5;
