// What the canvas shows: an exact centre, and the width of the plane across it. Lengths are in units of 2^-scale, which
// is 1 until the view is deep.

import { fixed, format, number, parse, scientific } from "./exact.js";

export const TILE = 256;
export const TILE_LEVEL = 8; // a tile of level z has samples 2^-(z + 8) apart
const WIDEST = 32;
const DEEPEST = 14000; // a level: 10^-4200 across; the server takes numbers of so many digits
const DEEPEST_BINARY64 = 900; // near 0, where it is no matter of digits but of exponents
const FARTHEST = fixed(16);
const DEEP = 64; // powers of two: the scale changes in such steps, so that the span stays within 2^-128 and 2^-64 units

export class View {
  re = 0n;
  im = 0n;
  scale = 0;
  span = 4;
  width = 1; // CSS pixels
  height = 1;
  density = 1; // device pixels a CSS pixel, as drawn
  opened = {}; // the decimals of the centre in the link that was opened

  constructor(scene) {
    this.homeScale = scaleOf(-scene.unit);
    this.bounds = [...scene.x, ...scene.y].map((text) => parse(text, this.homeScale));
  }

  /** Units in a CSS pixel. */
  get unit() {
    return this.span / this.width;
  }

  /** Units in a pixel that is drawn. */
  get pixel() {
    return this.unit / this.density;
  }

  /** The level of live tiles whose samples are nearest to the pixels. */
  get level() {
    return Math.round(-Math.log2(this.pixel)) + this.scale - TILE_LEVEL;
  }

  /** The deepest level that binary64 resolves here: samples four units in the last place apart. */
  get deepest() {
    const far = [this.re, this.im].map((part) => Math.abs(number(part >> BigInt(this.scale))));
    return Math.min(DEEPEST_BINARY64, 42 - Math.floor(Math.log2(Math.max(...far) + this.span * 2 ** -this.scale)));
  }

  /** Whether zooming in has come to its end. */
  get atEnd() {
    return this.level >= DEEPEST;
  }

  resize(width, height, density) {
    Object.assign(this, { width, height, density });
    this.keepWithin();
  }

  /** The whole of the field, with a little around it. */
  home() {
    const [left, right, bottom, top] = this.bounds;
    Object.assign(this, { re: (left + right) / 2n, im: (bottom + top) / 2n, span: this.homeSpan, scale: this.homeScale });
    this.keepWithin();
  }

  /** The width of the whole, in units of 2^-homeScale. */
  get homeSpan() {
    const [left, right, bottom, top] = this.bounds;
    const [wide, high] = [number(right - left), number(top - bottom)];
    return 1.06 * Math.max(wide, (high * this.width) / this.height) || 1e-6;
  }

  pan(dx, dy) {
    this.re -= fixed(dx * this.unit);
    this.im += fixed(dy * this.unit);
    this.keepWithin();
  }

  /** Zoom in by a factor; the point under (x, y) stays. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.unit;
    if (!(factor > 1 && this.atEnd)) this.span = Math.min(this.span / factor, this.widest);
    const change = before - this.unit;
    this.re += fixed((x - this.width / 2) * change);
    this.im -= fixed((y - this.height / 2) * change);
    this.keepWithin();
  }

  keepWithin() {
    this.span = Math.min(this.span, this.widest);
    const far = FARTHEST << BigInt(this.scale);
    const clip = (value) => (value > far ? far : value < -far ? -far : value);
    Object.assign(this, { re: clip(this.re), im: clip(this.im) });
    this.#rescale(scaleOf(this.scale - Math.log2(this.span)));
  }

  get widest() {
    return WIDEST * 2 ** this.scale;
  }

  #rescale(scale) {
    const by = scale - this.scale;
    if (!by) return;
    const [re, im] = ["re", "im"].map((part) => (this.#isOpened(part) ? parse(this.opened[part], scale) : this[part] << BigInt(by)));
    Object.assign(this, { scale, re, im, span: this.span * 2 ** by });
  }

  /** The point of the plane under a CSS pixel. */
  at(x, y) {
    return [
      this.re + fixed((x - this.width / 2) * this.unit),
      this.im - fixed((y - this.height / 2) * this.unit),
    ];
  }

  /** Decimals that tell apart a thousandth of a pixel. */
  get decimals() {
    return Math.max(3, Math.ceil(this.scale * Math.log10(2) - Math.log10(this.unit)) + 3);
  }

  /** Centre and span as the decimals of a link. */
  toText() {
    const { decimals, scale, span } = this;
    const width = scale ? scientific(span, 7, scale) : span.toPrecision(7);
    const [re, im] = ["re", "im"].map((part) => (this.#isOpened(part) ? this.opened[part] : format(this[part], decimals, scale)));
    return [re, im, width];
  }

  /** Take centre and span from a link: until the centre moves, its digits are kept, however many. */
  open(re, im, span) {
    const taken = this.fromText(re, im, span);
    if (taken) this.opened = { re, im };
    return taken;
  }

  #isOpened(part) {
    return this.opened[part] !== undefined && parse(this.opened[part], this.scale) === this[part];
  }

  /** Take centre and span from decimals; false, and nothing taken, where they are none. */
  fromText(re, im, span) {
    const [, digits, exponent = "0"] = /^\s*([\d.]+)(?:e([-+]?\d{1,4}))?\s*$/i.exec(span ?? "") ?? [];
    const depth = -Math.log2(Number(digits)) - Number(exponent) * Math.log2(10);
    if (!(Math.abs(depth) <= DEEPEST)) return false;
    const scale = scaleOf(depth);
    const [x, y] = [parse(re, scale), parse(im, scale)];
    if (x === null || y === null) return false;
    Object.assign(this, { re: x, im: y, span: scale ? 2 ** (scale - depth) : Number(span), scale });
    this.keepWithin();
    return true;
  }
}

/** The scale of a view that is 2^-depth across. */
export const scaleOf = (depth) => DEEP * Math.max(0, Math.floor(depth / DEEP) - 1);
