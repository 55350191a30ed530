// What the canvas shows: an exact centre, and the width of the plane across it.

import { fixed, format, number, parse } from "./exact.js";

export const TILE = 256;
export const TILE_LEVEL = 8; // a tile of level z has samples 2^-(z + 8) apart
const WIDEST = 32;
const DEEPEST = 150; // near 0, where binary64 would go on; a fixed-point number has 192 bits
const FARTHEST = fixed(16);

export class View {
  re = 0n;
  im = 0n;
  span = 4;
  width = 1; // CSS pixels
  height = 1;
  density = 1; // device pixels a CSS pixel, as drawn

  constructor(scene) {
    this.bounds = [...scene.x, ...scene.y].map(parse);
  }

  /** Units of the plane in a CSS pixel. */
  get unit() {
    return this.span / this.width;
  }

  /** Units of the plane in a pixel that is drawn. */
  get pixel() {
    return this.unit / this.density;
  }

  /** The level of live tiles whose samples are nearest to the pixels. */
  get level() {
    return Math.round(-Math.log2(this.pixel)) - TILE_LEVEL;
  }

  /** The deepest level that binary64 resolves here: samples four units in the last place apart. */
  get deepest() {
    const far = Math.max(Math.abs(number(this.re)), Math.abs(number(this.im))) + this.span;
    return Math.min(DEEPEST, 42 - Math.floor(Math.log2(far)));
  }

  /** The narrowest width that binary64 resolves here. */
  get narrowest() {
    return 2 ** -(this.deepest + TILE_LEVEL + 0.49) * this.density * this.width;
  }

  /** Whether zooming in has come to binary64's end. */
  get atEnd() {
    return this.span <= this.narrowest * 1.001;
  }

  resize(width, height, density) {
    Object.assign(this, { width, height, density });
    this.keepWithin();
  }

  /** The whole of the field, with a little around it. */
  home() {
    const [left, right, bottom, top] = this.bounds;
    this.re = (left + right) / 2n;
    this.im = (bottom + top) / 2n;
    this.span = this.homeSpan;
    this.keepWithin();
  }

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
    this.span = Math.min(Math.max(this.span / factor, Math.min(this.narrowest, this.span)), WIDEST);
    const change = before - this.unit;
    this.re += fixed((x - this.width / 2) * change);
    this.im -= fixed((y - this.height / 2) * change);
    this.keepWithin();
  }

  keepWithin() {
    const clip = (value) => (value > FARTHEST ? FARTHEST : value < -FARTHEST ? -FARTHEST : value);
    this.re = clip(this.re);
    this.im = clip(this.im);
    this.span = Math.min(Math.max(this.span, this.narrowest), WIDEST);
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
    return Math.max(3, Math.ceil(-Math.log10(this.unit)) + 3);
  }

  /** Centre and span as the decimals of a link. */
  toText() {
    return [format(this.re, this.decimals), format(this.im, this.decimals), this.span.toPrecision(7)];
  }

  /** Take centre and span from decimals; false, and nothing taken, where they are none. */
  fromText(re, im, span) {
    const [x, y, width] = [parse(re), parse(im), Number(span)];
    if (x === null || y === null || !(width > 0 && Number.isFinite(width))) return false;
    Object.assign(this, { re: x, im: y, span: width });
    this.keepWithin();
    return true;
  }
}
