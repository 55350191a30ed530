// Counts -> colours, in the page: a change of colours asks the server for nothing.

const RUNGS = 1024; // of a colour map once up and once down
const SCALES = {
  log: (n) => Math.log2(n + 1) / 10,
  root: (n) => Math.sqrt(n) / 32,
  linear: (n) => n / 1024,
};
export const SCALE_NAMES = Object.keys(SCALES);
export const DEFAULTS = {
  map: "classic", scale: "log", density: 1, phase: 0, smooth: false, interior: "#000000", fit: true,
};

export class Colours {
  version = 0;
  #table = new Uint32Array(0);

  constructor(maps) {
    this.maps = maps;
    this.settings = { ...DEFAULTS };
  }

  /** Take new settings; tiles are coloured anew when they are next drawn. */
  set(settings, maxIter) {
    Object.assign(this.settings, settings);
    this.version += 1;
    this.maxIter = maxIter;
    this.#ladder();
    this.#table = null;
  }

  #ladder() {
    const map = this.maps[this.settings.map] ?? Object.values(this.maps)[0];
    this.ladder = new Uint32Array(RUNGS);
    for (let k = 0; k < RUNGS; k++) {
      const t = (1 - Math.abs(1 - (2 * k) / RUNGS)) * (map.length - 1); // up, then down: no seam
      const [low, part] = [Math.floor(t), t % 1];
      const [a, b] = [map[low], map[Math.min(low + 1, map.length - 1)]];
      const [red, green, blue] = a.map((v, i) => Math.round(v + part * (b[i] - v)));
      this.ladder[k] = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
    }
    const [, red, green, blue] = /^#(..)(..)(..)$/.exec(this.settings.interior).map((hex) => parseInt(hex, 16));
    this.interior = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
  }

  #rung(t) {
    const { density, phase } = this.settings;
    const at = (density * t + phase) / 2;
    return Math.floor((at - Math.floor(at)) * RUNGS) & (RUNGS - 1);
  }

  #colours() {
    if (this.#table) return this.#table;
    const scale = SCALES[this.settings.scale];
    const table = new Uint32Array(this.maxIter + 1);
    for (let n = 1; n < table.length; n++) table[n] = this.ladder[this.#rung(scale(n))];
    return (this.#table = table);
  }

  /** The picture of a tile, made anew where the colours have changed since. */
  picture(tile) {
    if (tile.look?.version === this.version) return tile.look.canvas;
    const canvas = tile.look?.canvas ?? new OffscreenCanvas(tile.columns, tile.rows);
    const context = canvas.getContext("2d", { alpha: true });
    const image = new ImageData(tile.columns, tile.rows);
    this.#paint(tile, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
    tile.look = { version: this.version, canvas };
    return canvas;
  }

  #paint({ counts, fraction, rows, columns, maxIter }, out) {
    const cap = Math.min(maxIter, this.maxIter);
    const table = this.#colours();
    const scale = SCALES[this.settings.scale];
    const smooth = this.settings.smooth && fraction;
    for (let row = 0; row < rows; row++) {
      let to = (rows - 1 - row) * columns; // y up
      for (let from = row * columns; from < (row + 1) * columns; from++, to++) {
        const n = counts[from];
        if (n >= cap) out[to] = this.interior;
        else if (smooth && fraction[from]) {
          out[to] = this.ladder[this.#rung(scale(Math.max(0, n + fraction[from] / 100 - 2)))];
        } else out[to] = table[n]; // 0, not computed, is transparent
      }
    }
  }

  /** Density and phase that run once through the map from the lowest count in view to nearly the highest. */
  fit(tiles) {
    const scale = SCALES[this.settings.scale];
    const seen = [];
    for (const { counts, maxIter } of tiles) {
      const cap = Math.min(maxIter, this.maxIter);
      for (let i = 0; i < counts.length; i += 61) if (counts[i] && counts[i] < cap) seen.push(counts[i]);
    }
    if (seen.length < 2) return null;
    seen.sort((a, b) => a - b);
    const low = scale(seen[Math.floor(0.001 * seen.length)]);
    const high = scale(seen[Math.floor(0.998 * (seen.length - 1))]);
    const density = Math.min(Math.max(1 / Math.max(high - low, 1e-3), 0.1), 60);
    return { density: Number(density.toPrecision(3)), phase: Number((-low * density - 2 * Math.floor((-low * density) / 2)).toFixed(3)) };
  }
}
