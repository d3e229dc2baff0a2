// What a chart draws: columns of times and values, made of what the server keeps and what came live since.
// Pure: no clock, no drawing. Times are milliseconds; columns are sorted by time.
import type { Series } from "../api/shapes";

export interface Column {
  t: number[];
  v: (number | null)[];
}
export interface Banded extends Column {
  low?: (number | null)[];
  high?: (number | null)[];
}

export type Plot = "line" | "steps" | "text";

/** Numbers are drawn as a line, truth as steps, text not at all. */
export function plotOf(value: unknown): Plot {
  return typeof value === "number" ? "line" : typeof value === "boolean" ? "steps" : "text";
}

/** Only what can be drawn; false and true become 0 and 1. Empty buckets are not there: gaps are found by time. */
export function numeric(series: Series | undefined): Column {
  const column: Column = { t: [], v: [] };
  if (!series) return column;
  for (let i = 0; i < series.t.length; i++) {
    const value = series.v[i];
    const number = typeof value === "boolean" ? Number(value) : value;
    if (typeof number !== "number" || !Number.isFinite(number)) continue;
    column.t.push(series.t[i]!);
    column.v.push(number);
  }
  return column;
}

/** Put the smallest and largest of each bucket beside its mean. Buckets that one of the three lacks are left out. */
export function banded(mean: Series | undefined, low: Series | undefined, high: Series | undefined): Banded {
  const middle = numeric(mean);
  const lows = byTime(low);
  const highs = byTime(high);
  const result = {
    t: [] as number[],
    v: [] as (number | null)[],
    low: [] as (number | null)[],
    high: [] as (number | null)[],
  };
  middle.t.forEach((t, i) => {
    result.t.push(t);
    result.v.push(middle.v[i]!);
    result.low.push(lows.get(t) ?? middle.v[i]!);
    result.high.push(highs.get(t) ?? middle.v[i]!);
  });
  return result;
}

function byTime(series: Series | undefined): Map<number, number> {
  const column = numeric(series);
  return new Map(column.t.map((t, i) => [t, column.v[i]!]));
}

/** Add one live point in place; one no newer than the last corrects it or is dropped. True when something changed. */
export function append(column: Column, t: number, v: number, limit: number): boolean {
  const last = column.t.at(-1);
  if (last !== undefined && t < last) return false;
  if (last === t) {
    if (column.v[column.v.length - 1] === v) return false;
    column.v[column.v.length - 1] = v;
    return true;
  }
  column.t.push(t);
  column.v.push(v);
  if (column.t.length > limit) {
    column.t.splice(0, column.t.length - limit);
    column.v.splice(0, column.v.length - limit);
  }
  return true;
}

/** What the server keeps, then the live points that are newer than all of it. */
export function joined(stored: Banded, fresh: Column, bucketMs = 0): Banded {
  const from = stored.t.length ? stored.t.at(-1)! + bucketMs : -Infinity;
  let start = fresh.t.length;
  while (start > 0 && fresh.t[start - 1]! > from) start -= 1;
  const t = stored.t.concat(fresh.t.slice(start));
  const tail = fresh.v.slice(start);
  const result: Banded = { t, v: stored.v.concat(tail) };
  if (stored.low && stored.high) {
    result.low = stored.low.concat(tail);
    result.high = stored.high.concat(tail);
  }
  return result;
}

/** The usual distance of two points: the median of (a sample of) all distances. */
export function usualStep(t: number[]): number {
  if (t.length < 3) return 0;
  const every = Math.max(1, Math.floor(t.length / 500));
  const steps: number[] = [];
  for (let i = every; i < t.length; i += every) steps.push(t[i]! - t[i - 1]!);
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)]!;
}

/** Break the line where nothing came for much longer than usual, so that silence looks like silence. */
export function withGaps(data: Banded, atLeastMs: number): Banded {
  const limit = Math.max(usualStep(data.t) * 3.5, atLeastMs);
  const out: Banded = { t: [], v: [] };
  if (data.low && data.high) {
    out.low = [];
    out.high = [];
  }
  for (let i = 0; i < data.t.length; i++) {
    if (i > 0 && data.t[i]! - data.t[i - 1]! > limit) {
      out.t.push(data.t[i - 1]! + 1);
      out.v.push(null);
      out.low?.push(null);
      out.high?.push(null);
    }
    out.t.push(data.t[i]!);
    out.v.push(data.v[i]!);
    out.low?.push(data.low![i]!);
    out.high?.push(data.high![i]!);
  }
  return out;
}

export interface Window {
  id: string;
  label: string;
  ms: number;
}

export const windows: Window[] = [
  { id: "5m", label: "5 min", ms: 300_000 },
  { id: "15m", label: "15 min", ms: 900_000 },
  { id: "1h", label: "1 h", ms: 3_600_000 },
  { id: "6h", label: "6 h", ms: 21_600_000 },
  { id: "24h", label: "24 h", ms: 86_400_000 },
  { id: "7d", label: "7 d", ms: 604_800_000 },
  { id: "30d", label: "30 d", ms: 2_592_000_000 },
];

const NEW_MS = 600_000;

/** What to show at first: of a device that is just coming to life its few minutes, else a quarter of an hour. */
export function firstWindow(firstSeenAt: number | null, now: number): Window {
  return firstSeenAt !== null && now - firstSeenAt < NEW_MS ? windows[0]! : windows[1]!;
}

/** Short windows show every point; longer ones at most this many buckets with their smallest and largest. */
export const BUCKETS = 400;

export function isRaw(spanMs: number): boolean {
  return spanMs <= 1_000_000;
}
