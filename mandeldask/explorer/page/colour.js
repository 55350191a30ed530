// Counts -> colours, in the page, as `mandeldask image` has them: a change of colours asks the server for nothing.

import { drawnDown } from "./light.js";

const RUNGS = 1024; // of a colour map once up and once down
const CURVED = 64; // below, a scale bends too much to be taken for straight from one count to the next
export const MOST_DENSE = 1000;
const SCALES = {
  log: (n) => Math.log2(Math.max(n, 1)) / 10,
  root: (n) => Math.sqrt(Math.max(n, 0)) / 32,
  linear: (n) => Math.max(n, 0) / 1024,
};
export const SCALE_NAMES = Object.keys(SCALES);
export const DEFAULTS = {
  map: "classic", scale: "log", density: 1, phase: 0, smooth: true, interior: "#000000", fit: true,
};

export class Colours {
  version = 0;
  #places = new Float64Array(0); // on the ladder, in rounds, by count

  constructor({ colormaps, fractions }) {
    this.maps = colormaps;
    [this.least, this.steps] = fractions;
    this.settings = { ...DEFAULTS };
  }

  /** Take new settings, and the count from which on a sample is drawn as not escaped; tiles are coloured anew when they are next drawn. */
  set(settings, cap) {
    Object.assign(this.settings, settings);
    this.version += 1;
    this.cap = cap;
    this.#ladder();
    this.#places = new Float64Array(0);
  }

  #ladder() {
    const map = this.maps[this.settings.map] ?? Object.values(this.maps)[0];
    this.ladder = new Uint32Array(RUNGS);
    for (let k = 0; k < RUNGS; k++) {
      const t = (1 - Math.abs(1 - (2 * k) / RUNGS)) * (map.length - 1); // up, then down: no seam
      const [low, part] = [Math.floor(t), t % 1];
      const [a, b] = [map[low], map[Math.min(low + 1, map.length - 1)]];
      this.ladder[k] = packed(a.map((v, i) => Math.round(v + part * (b[i] - v))));
    }
    const [, ...interior] = /^#(..)(..)(..)$/.exec(this.settings.interior).map((hex) => parseInt(hex, 16));
    this.interior = packed(interior);
  }

  #place(value) {
    const { density, phase, scale } = this.settings;
    return (density * SCALES[scale](value) + phase) / 2;
  }

  /** The places of the counts up to a max_iter, and one more. */
  #placesTo(maxIter) {
    if (this.#places.length < maxIter + 2) {
      this.#places = new Float64Array(maxIter + 2);
      for (let n = 0; n < maxIter + 2; n++) this.#places[n] = this.#place(n);
    }
    return this.#places;
  }

  /** The picture of a tile, made anew where the colours have changed since. */
  picture(tile) {
    if (tile.look?.version !== this.version) {
      tile.look = { version: this.version, canvas: drawn(this.#paint(tile), tile.columns, tile.rows, tile.look?.canvas) };
    }
    return tile.look.canvas;
  }

  /** A tile drawn down to so many pixels: each is the mean, in linear light, of the samples that lie in it. */
  fine(tile, width, height) {
    const pixels = drawnDown(this.#paint(tile), tile.columns, tile.rows, width, height);
    tile.fine = { version: this.version, canvas: drawn(pixels, width, height) };
  }

  /** What the continuous escape time is beyond the count; 0 where it has no value. */
  #beyond(steps) {
    return steps && this.least + steps / this.steps;
  }

  #paint(tile) {
    const { counts, fraction, rows, columns, maxIter } = tile;
    const out = new Uint32Array(rows * columns);
    const cap = Math.min(maxIter, this.cap);
    const places = this.#placesTo(maxIter);
    const smooth = this.settings.smooth && fraction;
    for (let row = 0; row < rows; row++) {
      let to = (rows - 1 - row) * columns; // y up
      for (let from = row * columns; from < (row + 1) * columns; from++, to++) {
        const n = counts[from];
        if (n >= cap) out[to] = this.interior;
        else if (n) {
          let at = places[n]; // 0, not computed, is transparent
          if (smooth && fraction[from]) {
            const beyond = this.#beyond(fraction[from]);
            if (n < CURVED) at = this.#place(n + beyond);
            else at += beyond * (places[n + 1] - at);
          }
          out[to] = this.ladder[((at - Math.floor(at)) * RUNGS + 0.5) & (RUNGS - 1)];
        }
      }
    }
    return out;
  }

  /** Escape times of some of the tiles' samples, in order. */
  #values(tiles) {
    const seen = [];
    for (const { counts, fraction, maxIter } of tiles) {
      const cap = Math.min(maxIter, this.cap);
      for (let i = 0; i < counts.length; i += 13)
        if (counts[i] && counts[i] < cap) seen.push(counts[i] + (this.settings.smooth && fraction ? this.#beyond(fraction[i]) : 0));
    }
    return Float64Array.from(seen).sort();
  }

  /** Density and phase that run once through the map from the lowest escape time in view to nearly the highest. */
  fit(tiles) {
    const seen = this.#values(tiles);
    if (seen.length < 2) return null;
    const [low, high] = [0.001, 0.998].map((part) => SCALES[this.settings.scale](seen[Math.floor(part * (seen.length - 1))]));
    const density = Math.min(Math.max(1 / Math.max(high - low, 1e-3), 0.1), MOST_DENSE);
    return { density: Number(density.toPrecision(3)), phase: Number((-low * density - 2 * Math.floor((-low * density) / 2)).toFixed(3)) };
  }

  /** These colours as the `picture` of a run description: between limits, they do not depend on which samples it has. */
  toPicture(maxIter) {
    const { map, scale, interior, smooth } = this.settings;
    const limits = [scale === "log" ? 1 : 0, Math.max(maxIter, 2)];
    const [start, end] = limits.map((value) => this.#place(value));
    const rounds = { repeat: Number((end - start).toPrecision(9)), phase: Number((start % 1).toFixed(6)) };
    return { colormap: map, interior, shade: smooth ? "smooth" : "counts", scale, limits, ...rounds };
  }
}

const packed = ([red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;

function drawn(pixels, columns, rows, canvas = new OffscreenCanvas(columns, rows)) {
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows), 0, 0);
  return canvas;
}
