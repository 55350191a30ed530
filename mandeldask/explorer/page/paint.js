// A frame: each target's tile, or, until it is here, the best of what is.

import { overlap, rectangle, within } from "./tiles.js";

const BUDGET = 7; // ms a frame for colouring tiles: 5 to 30 of them
const OUTLINES = { stored: "#5ad1c4", live: "#ffb454" };

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
  }

  /** Draw targets and on them finer tiles, which are drawn down where the view rests; true where some are still to be coloured. */
  frame(view, tiles, colours, { targets, finer, resting, outlined }) {
    const { context, canvas } = this;
    this.colours = colours;
    this.until = performance.now() + BUDGET;
    this.behind = false;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingEnabled = true;
    const screen = { x: 0, y: 0, w: canvas.width, h: canvas.height };
    const around = [];
    for (const tile of tiles.cache.values()) {
      const box = rectangle(tile, view);
      if (overlap(box, screen)) around.push([tile, box]);
    }
    const shown = [];
    context.fillStyle = "#14161b";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const order = [...targets].sort((a, b) => (a.kind === b.kind ? 0 : a.kind === "live" ? -1 : 1));
    for (const target of order) {
      const tile = tiles.here(target);
      if (!tile || tile.missing) this.#standIn(target.rectangle, around, tile, shown);
      if (tile) this.#draw(tile, target.rectangle, null), shown.push(tile);
    }
    for (const target of finer) {
      const tile = tiles.here(target);
      if (tile && !tile.missing) this.#drawFine(tile, target.rectangle, resting), shown.push(tile);
    }
    if (outlined) for (const target of targets) if (tiles.here(target)) this.#outline(target);
    tiles.keep(shown);
    return this.behind;
  }

  /** What there is of a target: the finest tile that holds it all, and on it finer ones; else coarser ones in part. */
  #standIn(box, around, except, shown) {
    const near = around.filter(([tile, other]) => tile !== except && overlap(other, box));
    const coarse = near.filter(([tile, other]) => other.w / tile.columns >= (box.w / 256) * 0.99);
    coarse.sort(([a, p], [b, q]) => q.w / b.columns - p.w / a.columns);
    const holder = coarse.findLastIndex(([tile, other]) => !tile.missing && within(box, other));
    const fine = near.filter(([tile, other]) => other.w / tile.columns < (box.w / 256) * 0.99);
    const few = fine.length > 24 ? [] : fine.sort(([a, p], [b, q]) => q.w / b.columns - p.w / a.columns);
    for (const [tile, other] of [...coarse.slice(Math.max(0, holder)), ...few]) {
      this.#draw(tile, other, box);
      shown.push(tile);
    }
  }

  /** A tile in its place, or the part of it that lies in a box; on whole pixels, so that there are no seams. */
  #draw(tile, at, box) {
    const late = tile.look?.version !== this.colours.version && performance.now() > this.until;
    if (late) this.behind = true;
    if (late && !tile.look) return;
    const picture = late ? tile.look.canvas : this.colours.picture(tile);
    const left = Math.max(at.x, box?.x ?? -Infinity, -2), top = Math.max(at.y, box?.y ?? -Infinity, -2);
    const right = Math.min(at.x + at.w, box ? box.x + box.w : Infinity, this.canvas.width + 2);
    const bottom = Math.min(at.y + at.h, box ? box.y + box.h : Infinity, this.canvas.height + 2);
    const [x, y, x2, y2] = [left, top, right, bottom].map(Math.round);
    if (x2 <= x || y2 <= y) return;
    const [kx, ky] = [tile.columns / at.w, tile.rows / at.h];
    const [sx, sy] = [Math.max(0, (left - at.x) * kx), Math.max(0, (top - at.y) * ky)];
    const sw = Math.min((right - left) * kx, tile.columns - sx), sh = Math.min((bottom - top) * ky, tile.rows - sy);
    if (sw > 0 && sh > 0) this.context.drawImage(picture, sx, sy, sw, sh, x, y, x2 - x, y2 - y);
  }

  #drawFine(tile, { x, y, w, h }, resting) {
    const { version } = this.colours;
    const [left, top, right, bottom] = [x, y, x + w, y + h].map(Math.round);
    const [width, height] = [right - left, bottom - top];
    const { canvas } = tile.fine ?? {};
    const old = tile.fine?.version !== version || canvas.width !== width || canvas.height !== height;
    if (old && resting && width > 0 && height > 0) {
      if (performance.now() > this.until) this.behind = true;
      else this.colours.fine(tile, width, height);
    }
    if (tile.fine?.version === version) this.context.drawImage(tile.fine.canvas, left, top, width, height);
  }

  #outline({ kind, rectangle: { x, y, w, h } }) {
    this.context.strokeStyle = OUTLINES[kind];
    this.context.lineWidth = 1;
    this.context.strokeRect(Math.round(x) + 0.5, Math.round(y) + 0.5, Math.round(w) - 1, Math.round(h) - 1);
  }
}
