// A list that is asked for again must not move under the pointer: rows keep their places and take their new values;
// rows that came or went wait until the reader asks for them.
import { useRef, useState } from "react";

export interface Steady<Row> {
  rows: Row[];
  waiting: number;
  show: () => void;
}

/** `key` names the question (filter, order, page): when it changes, the newest answer is shown as it is. */
export function useSteady<Row>(newest: Row[] | undefined, rowId: (row: Row) => string, key: string): Steady<Row> {
  const kept = useRef<{ key: string; ids: string[]; rows: Map<string, Row> }>({ key: "", ids: [], rows: new Map() });
  const [, redraw] = useState(0);
  const rows = newest ?? [];
  const ids = rows.map(rowId);
  const steady = kept.current;
  if (newest && (steady.key !== key || steady.ids.length === 0)) {
    kept.current = { key, ids, rows: new Map(rows.map((row) => [rowId(row), row])) };
  } else if (newest) {
    for (const row of rows) if (steady.rows.has(rowId(row))) steady.rows.set(rowId(row), row);
  }
  const now = kept.current;
  const known = new Set(now.ids);
  const asked = new Set(ids);
  const waiting = newest
    ? ids.filter((id) => !known.has(id)).length + now.ids.filter((id) => !asked.has(id)).length
    : 0;
  return {
    rows: now.ids.map((id) => now.rows.get(id)!),
    waiting,
    show: () => {
      kept.current = { key: "", ids: [], rows: new Map() };
      redraw((n) => n + 1);
    },
  };
}
