// The plane in fixed point: a BigInt n stands for n / 2^192 units of 2^-scale, so that an address is exact at any depth.
// The scale is 0 until a view is deep; what becomes a binary64 number is in these units.

export const BITS = 192;

/** The fixed-point number nearest to a decimal text; null for anything else. */
export function parse(text, scale = 0) {
  const match = /^\s*([-+]?)(\d{1,400})(?:\.(\d{0,9999}))?(?:e([-+]?\d{1,4}))?\s*$/i.exec(text ?? "");
  if (!match) return null;
  const [, sign, whole, rest = "", exponent = "0"] = match;
  const decimals = rest.length - Number(exponent);
  let top = BigInt(whole + rest) << BigInt(BITS + scale), bottom = 1n;
  if (decimals > 0) bottom = 10n ** BigInt(decimals);
  else top *= 10n ** BigInt(-decimals);
  const value = (2n * top + bottom) / (2n * bottom);
  return sign === "-" ? -value : value;
}

/** A fixed-point number with so many decimals. */
export function format(value, decimals, scale = 0) {
  const bits = BigInt(BITS + scale);
  const scaled = (abs(value) * 10n ** BigInt(decimals) + (1n << (bits - 1n))) >> bits;
  return (value < 0n && scaled > 0n ? "-" : "") + point(scaled.toString(), decimals);
}

/** n / 2^level in all its decimals. */
export function dyadic(n, level) {
  if (level <= 0) return (n << BigInt(-level)).toString();
  return (n < 0n ? "-" : "") + point((abs(n) * 5n ** BigInt(level)).toString(), level);
}

/** The binary64 number nearest to a fixed-point one; meant for differences. */
export const number = (value) => Number(value) / 2 ** 192;

/** A binary64 number in fixed point. */
export function fixed(value) {
  if (value === 0 || !Number.isFinite(value)) return 0n;
  const shift = 52 - Math.floor(Math.log2(Math.abs(value)));
  const digits = BigInt(Math.round(value * 2 ** shift));
  const up = 192 - shift;
  return up >= 0 ? digits << BigInt(up) : digits >> BigInt(-up);
}

/** The last multiple of 2^-level at or below a fixed-point number, in units of it. */
export const floor = (value, level, scale = 0) => value >> BigInt(BITS + scale - level);

/** n / 2^level in fixed point: the last one at or below. */
export const place = (n, level, scale = 0) => n << BigInt(BITS + scale - level);

/** A number of units of 2^-scale with so many significant digits, as far as binary64 has them. */
export function scientific(value, digits, scale) {
  if (!scale) return value.toExponential(digits - 1);
  const log = Math.log10(value) - scale * Math.log10(2);
  const mantissa = (10 ** (log - Math.floor(log))).toPrecision(digits);
  return mantissa.startsWith("10") ? `1${mantissa.slice(2)}e${Math.floor(log) + 1}` : `${mantissa}e${Math.floor(log)}`;
}

const abs = (value) => (value < 0n ? -value : value);

function point(digits, decimals) {
  if (!decimals) return digits;
  const padded = digits.padStart(decimals + 1, "0");
  return `${padded.slice(0, -decimals)}.${padded.slice(-decimals)}`;
}
