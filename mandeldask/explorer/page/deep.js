// Where binary64 ends: tiles are computed as offsets from an origin, along whose orbit they are followed. One origin
// serves a neighbourhood, and zooming in and out of it.

import { floor, number, place } from "./exact.js";
import { TILE_LEVEL } from "./view.js";

const SPARE = 2; // levels of an origin below the samples that it is chosen for
const DEEPER = 12, SHALLOWER = 24; // levels of views that an origin serves, from that of its choice
const NEAR = 64; // spans that the view may be away from its origin
const MARGIN = 8; // max_iter is so many times what nearly all samples in view take to escape
const NEARLY_ALL = 0.99;

export class Neighbourhood {
  origin = null; // the point (x, y) / 2^level

  /** Whether tiles of a view may be computed from the origin. */
  serves(view) {
    if (!this.origin) return false;
    const { x, y, level } = this.origin;
    const deeper = view.level + TILE_LEVEL + SPARE - level;
    if (deeper > DEEPER || deeper < -SHALLOWER) return false;
    const away = [place(x, level, view.scale) - view.re, place(y, level, view.scale) - view.im].map(number);
    return Math.hypot(...away) < NEAR * view.span;
  }

  /** Where the origin does not serve a view: none while it moves, then its centre; true where that was chosen. */
  follow(view, still) {
    if (this.serves(view)) return false;
    const level = view.level + TILE_LEVEL + SPARE;
    this.origin = still ? { x: floor(view.re, level, view.scale), y: floor(view.im, level, view.scale), level } : null;
    return still;
  }

  /** How a request for a tile names the origin: its level, and how many of 2^-level it lies from the tile's corner. */
  from({ level, column, row }) {
    if (!this.origin) return null;
    const by = BigInt(this.origin.level - level);
    return [this.origin.level, this.origin.x - (column << by), this.origin.y - (row << by)].join();
  }
}

/** How many iterations suffice for nearly all of the tiles in view, with a margin; 0 where nothing escapes. */
export function suffices(tiles) {
  const seen = [];
  for (const { counts, maxIter } of tiles) for (let i = 0; i < counts.length; i += 61) if (counts[i] < maxIter) seen.push(counts[i]);
  seen.sort((a, b) => a - b);
  const high = seen[Math.floor(NEARLY_ALL * seen.length)] ?? 0;
  return high && 2 ** Math.ceil(Math.log2(MARGIN * high));
}
