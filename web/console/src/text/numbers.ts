// Numbers as people read them. Pure.
import type { Value } from "../api/shapes";

const grouped = new Intl.NumberFormat("en-GB");
const six = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 6 });
const tenths = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });

export function count(n: number): string {
  return grouped.format(n);
}

/** A count that may grow for years, and stays short: "3,041", "1,204 M". */
export function tally(n: number): string {
  return n < 1e9 ? count(n) : `${count(Math.floor(n / 1e6))} M`;
}

/** "1 device", "1,204 devices". */
export function plural(n: number, noun: string, many = `${noun}s`): string {
  return `${count(n)} ${n === 1 ? noun : many}`;
}

/** "0", "0.4", "12", "1.2 k": a rate that keeps its width. */
export function rate(n: number): string {
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(1);
  if (n < 10_000) return count(Math.round(n));
  return `${(n / 1000).toFixed(n < 100_000 ? 1 : 0)} k`;
}

export function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = n / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function percent(part: number, whole: number): string {
  if (whole === 0) return "0 %";
  const share = (part / whole) * 100;
  // Neither 0 % for something nor 100 % for almost all.
  if (part > 0 && share < 1) return "<1 %";
  if (part < whole && share > 99) return ">99 %";
  return `${Math.round(share)} %`;
}

/** A reading: six significant digits at most, so that columns do not dance, but never less than its whole part. */
export function reading(value: Value): string {
  if (typeof value === "boolean") return value ? "true" : "false";
  if (typeof value === "string") return value;
  if (typeof value === "object") return position(value) ?? JSON.stringify(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return grouped.format(value);
  const size = Math.abs(value);
  if (size >= 1e9 || size < 1e-4) return value.toExponential(3);
  return size >= 10_000 ? tenths.format(value) : six.format(value);
}

/** "54.3, 10.1": latitude and longitude, with the height where there is one; null for what is no position. */
function position(value: object): string | null {
  const { lat, lon, alt, ...others } = value as Record<string, unknown>;
  if (typeof lat !== "number" || typeof lon !== "number" || Object.keys(others).length > 0) return null;
  return typeof alt === "number" ? `${lat}, ${lon}, ${alt} m` : alt === undefined ? `${lat}, ${lon}` : null;
}
