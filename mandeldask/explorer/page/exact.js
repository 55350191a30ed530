// The plane in fixed point: a BigInt n stands for n / 2^192, so that an address is exact at any depth.

export const BITS = 192n;
const HALF = 1n << (BITS - 1n);

/** The fixed-point number nearest to a decimal text; null for anything else. */
export function parse(text) {
  const match = /^\s*([-+]?)(\d{1,400})(?:\.(\d{0,400}))?(?:e([-+]?\d{1,3}))?\s*$/i.exec(text ?? "");
  if (!match) return null;
  const [, sign, whole, rest = "", exponent = "0"] = match;
  const scale = rest.length - Number(exponent);
  let top = BigInt(whole + rest) << BITS, bottom = 1n;
  if (scale > 0) bottom = 10n ** BigInt(scale);
  else top *= 10n ** BigInt(-scale);
  const value = (2n * top + bottom) / (2n * bottom);
  return sign === "-" ? -value : value;
}

/** A fixed-point number with so many decimals. */
export function format(value, decimals) {
  const scaled = (abs(value) * 10n ** BigInt(decimals) + HALF) >> BITS;
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
export function floor(value, level) {
  const shift = BITS - BigInt(level);
  return shift >= 0n ? value >> shift : value << -shift;
}

/** n / 2^level in fixed point. */
export const place = (n, level) => n << (BITS - BigInt(level));

const abs = (value) => (value < 0n ? -value : value);

function point(digits, decimals) {
  if (!decimals) return digits;
  const padded = digits.padStart(decimals + 1, "0");
  return `${padded.slice(0, -decimals)}.${padded.slice(-decimals)}`;
}
