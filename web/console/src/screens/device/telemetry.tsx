// What a device measures: one small chart a metric over one shared time range, and the latest values.
// Short windows show every reading and grow live; longer ones show buckets with their smallest and largest.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useRef, useState } from "react";
import { getLatest, listTimeline } from "../../api/calls";
import type { Latest, TimelineEntry, Value } from "../../api/shapes";
import type { Mark } from "../../chart/plot";
import { append, firstWindow, type Column, type Window } from "../../chart/series";
import { useLive } from "../../live/hooks";
import { Empty, Failure, Lines } from "../../parts/states";
import { clip } from "../../text/clip";
import { plural } from "../../text/numbers";
import { Charts } from "./charts";
import { LatestTable } from "./latest-table";

const LIVE_POINTS = 5_000;

export default function Telemetry({ id }: { id: string }) {
  const latest = useQuery({ queryKey: ["latest", id], queryFn: () => getLatest(id), refetchInterval: 30_000 });
  const events = useQuery({
    queryKey: ["timeline", id, "marks"],
    queryFn: () => listTimeline(id, { kinds: "connected,disconnected,command,update", limit: 200 }),
    refetchInterval: 30_000,
  });
  const { fresh, version, dropped } = useFresh(id);
  const names = Object.keys(latest.data ?? {}).sort();
  const metrics = useMemo(() => names, [names.join("\n")]);
  const marks = useMemo(() => (events.data?.items ?? []).map(markOf), [events.data]);
  // Decided once: the charts do not change their range by themselves when the device gets older.
  const first = useRef<Window | null>(null);
  if (!events.isLoading) first.current ??= firstWindow(firstConnection(events.data), Date.now());

  if (latest.isError && !latest.data)
    return <Failure what="The readings could not be loaded" error={latest.error} retry={() => void latest.refetch()} />;
  if (!latest.data || !first.current) return <Lines rows={8} />;
  if (metrics.length === 0)
    return (
      <Empty title="No readings yet">
        Once the device sends <span className="mono">{'{"temperature": 21.5}'}</span> to{" "}
        <span className="mono">devices/{clip(id, 64)}/telemetry</span>, a chart for each value appears here by itself.
      </Empty>
    );
  return (
    <>
      <Charts
        id={id}
        latest={latest.data}
        metrics={metrics}
        fresh={fresh}
        version={version}
        dropped={dropped}
        marks={marks}
        first={first.current}
      />
      <section style={{ marginTop: 24 }}>
        <div className="section">
          <h2>Latest values</h2>
          <span className="dim" style={{ fontSize: "0.75rem" }}>
            {plural(metrics.length, "metric")}
          </span>
        </div>
        <LatestTable latest={latest.data} metrics={metrics} />
      </section>
    </>
  );
}

/** Readings that come while the page is open: into the latest values at once, into columns for the charts. */
function useFresh(id: string): { fresh: Map<string, Column>; version: number; dropped: number } {
  const queries = useQueryClient();
  const fresh = useRef(new Map<string, Column>());
  const [version, setVersion] = useState(0);
  const drawing = useRef(0);
  useEffect(() => {
    fresh.current = new Map();
    return () => {
      clearTimeout(drawing.current);
      drawing.current = 0;
    };
  }, [id]);
  const { dropped } = useLive("telemetry", id, (data) => {
    const series = (data as { series?: Record<string, { ts: number; value: Value }> } | null)?.series;
    if (!series) return;
    queries.setQueryData<Record<string, Latest>>(["latest", id], (before) => {
      const after = { ...before };
      for (const [metric, { ts, value }] of Object.entries(series))
        if (!after[metric] || after[metric].ts <= ts)
          after[metric] = { ...after[metric], ts, value, stale: Date.now() - ts > 300_000 };
      return after;
    });
    for (const [metric, { ts, value }] of Object.entries(series)) {
      if (typeof value !== "number" && typeof value !== "boolean") continue;
      let column = fresh.current.get(metric);
      if (!column) fresh.current.set(metric, (column = { t: [], v: [] }));
      append(column, ts, Number(value), LIVE_POINTS);
    }
    // Frames come up to ten a second; four drawings a second are enough for an eye.
    drawing.current ||= window.setTimeout(() => {
      drawing.current = 0;
      setVersion((n) => n + 1);
    }, 250);
  });
  return { fresh: fresh.current, version, dropped };
}

function markOf(entry: TimelineEntry): Mark {
  const isBad = entry.kind === "disconnected" || entry.level === "error";
  return {
    at: Date.parse(entry.at),
    text: entry.summary,
    tone: isBad ? "bad" : entry.kind === "connected" ? "off" : "busy",
  };
}

/** When the device connected for the first time; null where its history goes back further than one page. */
function firstConnection(page: { items: TimelineEntry[]; next_cursor?: string | null } | undefined): number | null {
  if (!page || page.next_cursor) return null;
  const first = page.items.findLast(({ kind }) => kind === "connected");
  return first ? Date.parse(first.at) : null;
}
