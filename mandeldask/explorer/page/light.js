// Supersampling: pixels as the mean of samples, in linear light.

const LIGHT = Float32Array.from({ length: 256 }, (_, k) => (k <= 10 ? k / 255 / 12.92 : ((k / 255 + 0.055) / 1.055) ** 2.4)); // IEC 61966-2-1
const STEPS = 8192;
const BYTE = Uint8Array.from({ length: STEPS + 1 }, (_, k) => {
  const light = k / STEPS;
  return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
});

/** Opaque pixels (uint32) in fewer columns and rows. */
export function drawnDown(pixels, columns, rows, width, height) {
  const out = new Uint32Array(width * height).fill(0xff000000);
  for (const shift of [0, 8, 16]) {
    const light = new Float32Array(pixels.length);
    for (let k = 0; k < light.length; k++) light[k] = LIGHT[(pixels[k] >>> shift) & 255];
    const narrow = shrink(light, columns, width, 1, rows, columns, width);
    const small = shrink(narrow, rows, height, width, width, 1, 1);
    for (let k = 0; k < out.length; k++) out[k] |= BYTE[Math.round(small[k] * STEPS)] << shift;
  }
  return out;
}

/** Along one axis `length` values become `wanted`, `step` apart, in each of `lines` that start `from` and `to` apart. */
function shrink(values, length, wanted, step, lines, from, to) {
  const out = new Float32Array((values.length / length) * wanted);
  const ratio = length / wanted;
  for (let k = 0; k < wanted; k++) {
    const [start, end] = [k * ratio, Math.min((k + 1) * ratio, length)];
    for (let i = Math.floor(start); i < end; i++) {
      const weight = (Math.min(i + 1, end) - Math.max(i, start)) / ratio;
      for (let line = 0; line < lines; line++) out[line * to + k * step] += weight * values[line * from + i * step];
    }
  }
  return out;
}
