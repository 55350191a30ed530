// A view as a link, as a run description, as a picture.

import { dyadic, floor, format, place, scientific } from "./exact.js";
import { DEFAULTS, MOST_DENSE } from "./colour.js";
import { TILE_LEVEL } from "./view.js";

const FINE = 2; // decimals of a sample's distance, to which a deep view's samples are told
const COLOURS = ["map", "scale", "density", "phase", "smooth", "interior"];

/** The fragment of a link to what is shown; `fixed` is max_iter, null where it follows the depth. */
export function toFragment(view, fixed, colours) {
  const [re, im, span] = view.toText();
  const parts = new URLSearchParams({ re, im, span, ...(fixed && { n: fixed }) });
  for (const key of COLOURS) if (colours[key] !== DEFAULTS[key]) parts.set(key, String(colours[key]));
  return `#${parts}`;
}

/** What a fragment says, checked: { centre, fixed, colours }, each null or empty where it says nothing of use. */
export function fromFragment(fragment, maps, scales, limit) {
  const parts = new URLSearchParams(fragment.slice(1));
  const colours = {};
  const text = (key, allowed) => {
    if (allowed(parts.get(key) ?? "")) colours[key] = parts.get(key);
  };
  const figure = (key, low, high) => {
    const value = Number(parts.get(key) ?? NaN);
    if (value >= low && value <= high) colours[key] = value;
  };
  text("map", (value) => Object.hasOwn(maps, value));
  text("scale", (value) => scales.includes(value));
  text("interior", (value) => /^#[0-9a-f]{6}$/i.test(value));
  figure("density", 0.01, MOST_DENSE);
  figure("phase", 0, 2);
  if (parts.has("smooth")) colours.smooth = parts.get("smooth") === "true";
  const n = Number(parts.get("n"));
  const fixed = Number.isInteger(n) && n >= 1 && n <= limit ? n : null;
  const words = ["re", "im", "span"].map((key) => parts.get(key));
  const centre = words.some((text) => text !== null) ? words : null;
  return { centre, fixed, colours };
}

/** The samples of the live tiles in view, `finer` levels deeper: the first and last columns and rows, in units of 2^-level. */
function samples(view, finer) {
  const level = view.level + finer + TILE_LEVEL;
  const [left, top] = view.at(0, 0).map((value) => floor(value, level, view.scale));
  const [right, bottom] = view.at(view.width, view.height).map((value) => floor(value, level, view.scale));
  return { level, left, right, bottom, top, shape: [Number(top - bottom) + 1, Number(right - left) + 1] };
}

/** How many rows and columns the run description of a view has. */
export const shape = (view, finer) => samples(view, finer).shape;

/**
 * The run description whose samples are those of the live tiles in view, `finer` levels deeper, in the same colours. It
 * gives bounds; where the view is deep centre and span, which place a sample to a fiftieth of its distance.
 */
export function description(view, maxIter, finer, picture) {
  const { level, left, right, bottom, top, shape } = samples(view, finer);
  const bounds = (low, high) => [dyadic(low, level), dyadic(high + 1n, level)];
  const decimals = Math.ceil((level + 1) * Math.log10(2)) + FINE;
  const middle = (low, high) => format(place(low + high + 1n, level + 1, view.scale), decimals, view.scale);
  const deep = view.level + finer > view.deepest;
  const spanDigits = Math.ceil(Math.log10(shape[1])) + FINE + 1;
  const where = deep
    ? { centre: [middle(left, right), middle(bottom, top)], span: scientific(shape[1], spanDigits, level) }
    : { x: bounds(left, right), y: bounds(bottom, top) };
  return {
    view: { ...where, shape, registration: "pixel" },
    max_iter: maxIter,
    fields: ["escape_time", "smooth"],
    picture: { ...picture, supersample: finer ? 2 : 1 },
  };
}

/** A run description as YAML. */
export function toYaml({ view, max_iter, fields, picture }, link) {
  const pair = (values) => `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;
  return [
    "# A view saved by `mandeldask explore`; compute it with  mandeldask run FILE --out STORE",
    `# ${link}`,
    "view:",
    ...(view.span ? [`  centre: ${pair(view.centre)}`, `  span: "${view.span}"`] : [`  x: ${pair(view.x)}`, `  y: ${pair(view.y)}`]),
    `  shape: [${view.shape.join(", ")}]`,
    `  registration: ${view.registration}`,
    `max_iter: ${max_iter}`,
    `fields: [${fields.join(", ")}]`,
    `picture: {${Object.entries(picture).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")}}`,
    "",
  ].join("\n");
}

/** Hand a file to the user. */
export function save(blob, filename) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
