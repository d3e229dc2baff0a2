// What a device measures: one small chart a metric over one shared time range, and the latest values.
// Short windows show every reading and grow live; longer ones show buckets with their smallest and largest.
import { Button, Group, SegmentedControl, Select, TextInput } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useRef, useState } from "react";
import { getLatest, getTelemetry, listTimeline } from "../../api/calls";
import type { Latest, Series, Value } from "../../api/shapes";
import { Chart, type Mark } from "../../chart/chart";
import { append, banded, BUCKETS, isRaw, joined, numeric, plotOf, windows, withGaps, type Banded, type Column } from "../../chart/series";
import { useLive } from "../../live/hooks";
import { useAddress } from "../../parts/address";
import { Ago, useTick } from "../../parts/ago";
import { DataTable, type Column as TableColumn } from "../../parts/data-table";
import { Icon } from "../../parts/icons";
import { Empty, Failure, Lines } from "../../parts/states";
import { clip } from "../../text/clip";
import { plural, reading } from "../../text/numbers";
import { absolute } from "../../text/time";

const CHARTS = 12;
const LIVE_POINTS = 5_000;
const nothing: Column = { t: [], v: [] };

export default function Telemetry({ id }: { id: string }) {
  const address = useAddress();
  const queries = useQueryClient();
  const latest = useQuery({ queryKey: ["latest", id], queryFn: () => getLatest(id), refetchInterval: 30_000 });
  const fresh = useRef(new Map<string, Column>());
  const [version, setVersion] = useState(0);
  const drawing = useRef(0);
  useEffect(() => { fresh.current = new Map(); return () => { clearTimeout(drawing.current); drawing.current = 0; }; }, [id]);

  const { dropped } = useLive("telemetry", id, (data) => {
    const series = (data as { series?: Record<string, { ts: number; value: Value }> } | null)?.series;
    if (!series) return;
    queries.setQueryData<Record<string, Latest>>(["latest", id], (before) => {
      const after = { ...before };
      for (const [metric, { ts, value }] of Object.entries(series)) if (!after[metric] || after[metric].ts <= ts) after[metric] = { ts, value, stale: Date.now() - ts > 300_000 };
      return after;
    });
    for (const [metric, { ts, value }] of Object.entries(series)) {
      if (typeof value === "string") continue;
      let column = fresh.current.get(metric);
      if (!column) fresh.current.set(metric, (column = { t: [], v: [] }));
      append(column, ts, Number(value), LIVE_POINTS);
    }
    // Frames come up to ten a second; four drawings a second are enough for an eye.
    drawing.current ||= window.setTimeout(() => { drawing.current = 0; setVersion((n) => n + 1); }, 250);
  });

  const metrics = useMemo(() => Object.keys(latest.data ?? {}).sort(), [Object.keys(latest.data ?? {}).sort().join("\n")]);
  if (latest.isError && !latest.data) return <Failure what="The readings could not be loaded" error={latest.error} retry={() => void latest.refetch()} />;
  if (latest.isLoading) return <Lines rows={8} />;
  if (metrics.length === 0) return <Empty title="No readings yet">Once the device sends <span className="mono">{'{"temperature": 21.5}'}</span> to <span className="mono">devices/{clip(id, 64)}/telemetry</span>, a chart for each value appears here by itself.</Empty>;
  return <Charts id={id} address={address} latest={latest.data!} metrics={metrics} fresh={fresh.current} version={version} dropped={dropped} />;
}

function Charts({ id, address, latest, metrics, fresh, version, dropped }: {
  id: string; address: ReturnType<typeof useAddress>; latest: Record<string, Latest>; metrics: string[]; fresh: Map<string, Column>; version: number; dropped: number;
}) {
  const [pausedAt, setPausedAt] = useState<number | null>(null);
  const [zoom, setZoom] = useState<[number, number] | null>(null);
  const [filter, setFilter] = useState("");
  const [showAll, setShowAll] = useState(false);
  const [frozen, setFrozen] = useState<Map<string, Banded> | null>(null);
  const window = windows.find(({ id: name }) => name === address.get("w")) ?? windows[1]!;
  // Long windows need not creep along each second.
  const creep = Math.max(1000, window.ms / 1200);
  const tick = useTick((now) => Math.floor(now / creep) * creep);
  const end = Math.max(pausedAt ?? tick + creep, 0);
  const range: [number, number] = zoom ?? [end - window.ms, end];
  const raw = isRaw(range[1] - range[0]);
  const bucketMs = raw ? 0 : Math.ceil((range[1] - range[0]) / BUCKETS);

  const drawable = metrics.filter((metric) => plotOf(latest[metric]!.value) !== "text");
  const matching = drawable.filter((metric) => metric.toLowerCase().includes(filter.toLowerCase()));
  const shown = showAll ? matching : matching.slice(0, CHARTS);
  const lines = shown.filter((metric) => plotOf(latest[metric]!.value) === "line");
  const steps = shown.filter((metric) => plotOf(latest[metric]!.value) === "steps");

  const stored = useQuery({
    queryKey: ["telemetry", id, shown.join("\n"), window.id, zoom],
    queryFn: ({ signal }) => load(id, lines, steps, zoom ?? [Date.now() - window.ms, Date.now() + 1000], signal),
    placeholderData: keepPreviousData, enabled: shown.length > 0,
    refetchInterval: zoom || pausedAt !== null ? false : raw ? 60_000 : Math.min(Math.max(window.ms / 200, 15_000), 300_000),
  });
  const events = useQuery({ queryKey: ["timeline", id, "marks"], queryFn: () => listTimeline(id, { kinds: "connected,disconnected,command,update", limit: 200 }), refetchInterval: 30_000 });
  const marks = useMemo<Mark[]>(() => (events.data?.items ?? []).map((entry) => ({
    at: Date.parse(entry.at), text: entry.summary, tone: entry.kind === "disconnected" || entry.level === "error" ? "bad" : entry.kind === "connected" ? "off" : "busy",
  })), [events.data]);

  const columns = useMemo(() => {
    const result = new Map<string, Banded>();
    for (const metric of shown) {
      const kept = stored.data?.get(metric) ?? nothing;
      result.set(metric, withGaps(zoom ? kept : joined(kept, fresh.get(metric) ?? nothing, bucketMs), Math.max(bucketMs * 2.5, 2_000)));
    }
    return result;
  }, [stored.data, version, shown.join("\n"), bucketMs, zoom]);
  const drawn = frozen ?? columns;

  const pause = (): void => {
    if (pausedAt === null) { setPausedAt(end); setFrozen(columns); } else { setPausedAt(null); setFrozen(null); }
  };
  const choose = (next: string): void => { setZoom(null); setPausedAt(null); setFrozen(null); address.set({ w: next === "15m" ? null : next }, { replace: true }); };
  return (
    <>
      <div className="filters">
        <SegmentedControl size="xs" visibleFrom="sm" data={windows.map(({ id: value, label }) => ({ value, label }))} value={zoom ? "" : window.id} onChange={choose} data-testid="window" />
        <Select size="xs" hiddenFrom="sm" w={100} aria-label="Window" data={windows.map(({ id: value, label }) => ({ value, label }))} value={window.id} onChange={(next) => choose(next ?? "15m")} />
        {zoom ? <Button variant="default" onClick={() => setZoom(null)} data-testid="zoom-reset" title={`${absolute(zoom[0])} to ${absolute(zoom[1])}`}>Zoomed in: back</Button>
          : <Button variant="default" onClick={pause} leftSection={<Icon name={pausedAt === null ? "pause" : "play"} size={13} />} data-testid="charts-pause">{pausedAt === null ? "Pause" : "Follow"}</Button>}
        {drawable.length > 6 && <TextInput size="xs" w={180} placeholder="Metric" aria-label="Filter metrics" value={filter} onChange={(event) => setFilter(event.currentTarget.value)} leftSection={<Icon name="search" size={13} />} data-page-search />}
        <span className="dim hide-sm" style={{ fontSize: "0.75rem", marginLeft: "auto" }}>
          {dropped > 0 && <>{plural(dropped, "live frame")} left out · </>}{raw ? "every reading" : "mean, with smallest and largest"} · drag to zoom
        </span>
      </div>
      {stored.isError && <div style={{ marginBottom: 10 }}><Failure what="The history could not be loaded" error={stored.error} retry={() => void stored.refetch()} /></div>}
      <div className="charts" style={{ opacity: stored.isPlaceholderData ? 0.6 : 1 }}>
        {shown.map((metric) => (
          <Chart key={metric} metric={metric} plot={plotOf(latest[metric]!.value)} data={drawn.get(metric) ?? nothing} range={range} marks={marks} stale={latest[metric]!.stale}
            onZoom={(from, to) => { setFrozen(null); setPausedAt(null); setZoom([from, to]); }} onReset={() => setZoom(null)} />
        ))}
      </div>
      {matching.length > shown.length && <Group justify="center" mt="sm"><Button variant="default" onClick={() => setShowAll(true)}>Show all {plural(matching.length, "chart")}</Button></Group>}
      <section style={{ marginTop: 24 }}>
        <div className="section"><h2>Latest values</h2><span className="dim" style={{ fontSize: "0.75rem" }}>{plural(metrics.length, "metric")}</span></div>
        <LatestTable latest={latest} metrics={metrics} />
      </section>
    </>
  );
}

async function load(id: string, lines: string[], steps: string[], [from, to]: [number, number], signal: AbortSignal): Promise<Map<string, Banded>> {
  const when = { start: String(Math.round(from)), end: String(Math.round(to)) };
  const result = new Map<string, Banded>();
  if (isRaw(to - from)) {
    const all = await getTelemetry(id, { ...when, metrics: [...lines, ...steps].join(",") }, signal);
    for (const [metric, series] of Object.entries(all)) result.set(metric, numeric(series));
    return result;
  }
  const ask = (metrics: string[], agg: "mean" | "min" | "max" | "last"): Promise<Record<string, Series>> =>
    metrics.length ? getTelemetry(id, { ...when, metrics: metrics.join(","), buckets: BUCKETS, agg }, signal) : Promise.resolve({});
  const [mean, low, high, last] = await Promise.all([ask(lines, "mean"), ask(lines, "min"), ask(lines, "max"), ask(steps, "last")]);
  for (const metric of lines) if (mean[metric]) result.set(metric, banded(mean[metric], low[metric], high[metric]));
  for (const metric of steps) if (last[metric]) result.set(metric, numeric(last[metric]));
  return result;
}

interface LatestRow { metric: string; value: Value; ts: number; stale: boolean }

const latestColumns: TableColumn<LatestRow>[] = [
  { id: "metric", header: "Metric", width: "40%", value: (row) => row.metric, cell: (row) => <span title={clip(row.metric, 128)}>{clip(row.metric, 64)}</span> },
  {
    id: "value", header: "Value", align: "right",
    cell: (row) => <span data-testid="latest-value" data-metric={row.metric} className={typeof row.value === "number" ? undefined : "mono"} title={clip(String(row.value), 500)}>{clip(reading(row.value), 80)}</span>,
  },
  { id: "age", header: "Received", width: 130, align: "right", value: (row) => row.ts, cell: (row) => <>{row.stale && <span className="dim">stale, </span>}<Ago at={row.ts} /></> },
];

function LatestTable({ latest, metrics }: { latest: Record<string, Latest>; metrics: string[] }) {
  const rows = metrics.map((metric) => ({ metric, ...latest[metric]! }));
  return <DataTable label="Latest values" testid="latest-table" columns={latestColumns} rows={rows} rowId={({ metric }) => metric} maxHeight={rows.length > 150 ? 520 : undefined} />;
}
