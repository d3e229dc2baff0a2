// The newest value of each metric, text ones too.
import type { Latest, Value } from "../../api/shapes";
import { Ago } from "../../parts/ago";
import { DataTable, type Column } from "../../parts/data-table";
import { clip } from "../../text/clip";
import { reading } from "../../text/numbers";

interface LatestRow {
  metric: string;
  value: Value;
  ts: number;
  stale: boolean;
  unit?: string | null;
}

const columns: Column<LatestRow>[] = [
  {
    id: "metric",
    header: "Metric",
    width: "40%",
    value: (row) => row.metric,
    cell: (row) => <span title={clip(row.metric, 128)}>{clip(row.metric, 64)}</span>,
  },
  {
    id: "value",
    header: "Value",
    align: "right",
    cell: (row) => (
      <>
        <span
          data-testid="latest-value"
          data-metric={row.metric}
          className={typeof row.value === "number" ? undefined : "mono"}
          title={clip(typeof row.value === "object" ? JSON.stringify(row.value) : String(row.value), 500)}
        >
          {clip(reading(row.value), 80)}
        </span>
        {row.unit && <span className="dim"> {clip(row.unit, 32)}</span>}
      </>
    ),
  },
  {
    id: "age",
    header: "Received",
    width: 130,
    align: "right",
    value: (row) => row.ts,
    cell: (row) => (
      <>
        {row.stale && <span className="dim">stale, </span>}
        <Ago at={row.ts} />
      </>
    ),
  },
];

export function LatestTable({ latest, metrics }: { latest: Record<string, Latest>; metrics: string[] }) {
  const rows = metrics.map((metric) => ({ metric, ...latest[metric]! }));
  return (
    <DataTable
      label="Latest values"
      testid="latest-table"
      columns={columns}
      rows={rows}
      rowId={({ metric }) => metric}
      maxHeight={rows.length > 150 ? 520 : undefined}
    />
  );
}
