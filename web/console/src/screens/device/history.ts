// What the server keeps of a device's metrics, as columns for the charts.
import { getTelemetry } from "../../api/calls";
import type { Series } from "../../api/shapes";
import { banded, BUCKETS, isRaw, numeric, type Banded } from "../../chart/series";

/** Every reading of a short span; of a longer one, means with least and most (`lines`) or last values (`steps`). */
export async function loadHistory(
  id: string,
  lines: string[],
  steps: string[],
  [from, to]: [number, number],
  signal: AbortSignal,
): Promise<Map<string, Banded>> {
  const when = { start: String(Math.round(from)), end: String(Math.round(to)) };
  const result = new Map<string, Banded>();
  if (isRaw(to - from)) {
    const all = await getTelemetry(id, { ...when, metrics: [...lines, ...steps].join(",") }, signal);
    for (const [metric, series] of Object.entries(all)) result.set(metric, numeric(series));
    return result;
  }
  const ask = (metrics: string[], agg: "mean" | "min" | "max" | "last"): Promise<Record<string, Series>> =>
    metrics.length
      ? getTelemetry(id, { ...when, metrics: metrics.join(","), buckets: BUCKETS, agg }, signal)
      : Promise.resolve({});
  const [mean, low, high, last] = await Promise.all([
    ask(lines, "mean"),
    ask(lines, "min"),
    ask(lines, "max"),
    ask(steps, "last"),
  ]);
  for (const metric of lines) if (mean[metric]) result.set(metric, banded(mean[metric], low[metric], high[metric]));
  for (const metric of steps) if (last[metric]) result.set(metric, numeric(last[metric]));
  return result;
}
