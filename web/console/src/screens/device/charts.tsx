// The charts of a device over one time range: what is stored, with what came live since. Pausing and zooming hold
// still.
import { Button, Group } from "@mantine/core";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import type { Latest } from "../../api/shapes";
import { Chart } from "../../chart/chart";
import type { Mark } from "../../chart/plot";
import {
  BUCKETS,
  isRaw,
  joined,
  plotOf,
  windows,
  withGaps,
  type Banded,
  type Column,
  type Window,
} from "../../chart/series";
import { useAddress } from "../../parts/address";
import { useTick } from "../../parts/ago";
import { Failure } from "../../parts/states";
import { plural } from "../../text/numbers";
import { loadHistory } from "./history";
import { WindowBar } from "./window-bar";

const CHARTS = 12;
const nothing: Column = { t: [], v: [] };

interface Props {
  id: string;
  latest: Record<string, Latest>;
  /** Names of all metrics, sorted. */
  metrics: string[];
  /** What came live; it grows in place, and `version` says that it has. */
  fresh: Map<string, Column>;
  version: number;
  dropped: number;
  marks: Mark[];
  /** Shown where the address names no window. */
  first: Window;
}

export function Charts({ id, latest, metrics, fresh, version, dropped, marks, first }: Props) {
  const address = useAddress();
  const [pausedAt, setPausedAt] = useState<number | null>(null);
  const [zoom, setZoom] = useState<[from: number, to: number] | null>(null);
  const [filter, setFilter] = useState("");
  const [showAll, setShowAll] = useState(false);
  const [frozen, setFrozen] = useState<Map<string, Banded> | null>(null);
  const window = windows.find(({ id: name }) => name === address.get("w")) ?? first;
  // Long windows need not creep along each second.
  const creep = Math.max(1000, window.ms / 1200);
  const tick = useTick((now) => Math.floor(now / creep) * creep);
  const end = Math.max(pausedAt ?? tick + creep, 0);
  const range: [number, number] = zoom ?? [end - window.ms, end];
  const raw = isRaw(range[1] - range[0]);
  const bucketMs = raw ? 0 : Math.ceil((range[1] - range[0]) / BUCKETS);

  const plotted = (metric: string) => plotOf(latest[metric]!.value);
  const drawable = metrics.filter((metric) => plotted(metric) !== "text");
  const matching = drawable.filter((metric) => metric.toLowerCase().includes(filter.toLowerCase()));
  const shown = showAll ? matching : matching.slice(0, CHARTS);
  const lines = shown.filter((metric) => plotted(metric) === "line");
  const steps = shown.filter((metric) => plotted(metric) === "steps");

  const stored = useQuery({
    queryKey: ["telemetry", id, shown.join("\n"), window.id, zoom],
    queryFn: ({ signal }) => {
      const [from, to] = zoom ?? [Date.now() - window.ms, Date.now() + 1000];
      return loadHistory(id, lines, steps, [from, to], signal);
    },
    placeholderData: keepPreviousData,
    enabled: shown.length > 0,
    refetchInterval:
      zoom || pausedAt !== null ? false : raw ? 60_000 : Math.min(Math.max(window.ms / 200, 15_000), 300_000),
  });
  const columns = useMemo(() => {
    const result = new Map<string, Banded>();
    for (const metric of shown) {
      const kept = stored.data?.get(metric) ?? nothing;
      const all = zoom ? kept : joined(kept, fresh.get(metric) ?? nothing, bucketMs);
      result.set(metric, withGaps(all, Math.max(bucketMs * 2.5, 2_000)));
    }
    return result;
  }, [stored.data, version, shown.join("\n"), bucketMs, zoom]);
  const drawn = frozen ?? columns;

  const follow = (): void => {
    setPausedAt(null);
    setFrozen(null);
  };
  const pause = (): void => {
    setPausedAt(end);
    setFrozen(columns);
  };
  const choose = (next: string): void => {
    setZoom(null);
    follow();
    address.set({ w: next === first.id ? null : next }, { replace: true });
  };
  const zoomIn = (from: number, to: number): void => {
    follow();
    setZoom([from, to]);
  };
  return (
    <>
      <WindowBar
        window={window}
        choose={choose}
        zoom={zoom}
        unzoom={() => setZoom(null)}
        isPaused={pausedAt !== null}
        pause={pausedAt === null ? pause : follow}
        filter={drawable.length > 6 ? { value: filter, onChange: setFilter } : undefined}
      >
        {dropped > 0 && <>{plural(dropped, "live frame")} left out · </>}
        {raw ? "every reading" : "mean, with smallest and largest"} · drag to zoom
      </WindowBar>
      {stored.isError && (
        <div style={{ marginBottom: 10 }}>
          <Failure what="The history could not be loaded" error={stored.error} retry={() => void stored.refetch()} />
        </div>
      )}
      <div className="charts" style={{ opacity: stored.isPlaceholderData ? 0.6 : 1 }}>
        {shown.map((metric) => (
          <Chart
            key={metric}
            metric={metric}
            plot={plotted(metric)}
            data={drawn.get(metric) ?? nothing}
            range={range}
            marks={marks}
            stale={latest[metric]!.stale}
            onZoom={zoomIn}
            onReset={() => setZoom(null)}
          />
        ))}
      </div>
      {matching.length > shown.length && (
        <Group justify="center" mt="sm">
          <Button variant="default" onClick={() => setShowAll(true)}>
            Show all {plural(matching.length, "chart")}
          </Button>
        </Group>
      )}
    </>
  );
}
